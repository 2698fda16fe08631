"""What to write next in a worked solution, also after mistakes.

A solution is a sequence of slots: "First", left operand, sign, change, =, result, ; and so on for each change, then
"answer", the total and the end. Every written token fills its slot, whatever it is. After a mistake the right
continuation goes on from what stands there: a wrong total is carried on, a result is computed from the operands as
written, "Next" is followed by the third change wherever it stands. So the teacher has an opinion in every state that a
student can get into.
"""

from __future__ import annotations

from collections.abc import Callable

from opd_core.tasks.word_problems import LARGEST_TOTAL, ORDER, Story

END = "<eos>"
WHEN, LEFT, SIGN, CHANGE, EQUALS, RESULT, SEMICOLON, ANSWER, TOTAL, LAST = range(10)  # the slots

# disturb(slot, right_token, change) -> the token that is written; change is 0 after the last step.
Disturb = Callable[[int, str, int], str]


def write(story: Story, disturb: Disturb) -> tuple[list[str], list[str]]:
    """Write a solution while ``disturb`` may replace tokens.

    Returns (written, right): the tokens that stand there, and for each of them the one that should have been written
    after the tokens before it. The last is always the end token.
    """
    written: list[str] = []
    right: list[str] = []

    def put(slot: int, token: str, change: int = 0) -> str:
        right.append(token)
        written.append(disturb(slot, token, change))
        return written[-1]

    total, step = story.start, 0
    while step < len(story.changes):
        when = put(WHEN, ORDER[step], story.changes[step])
        if when == "answer":
            break
        if when == END:
            return written, right
        if when in ORDER[: len(story.changes)]:
            step = ORDER.index(when)
        change = story.changes[step]
        left = _number(put(LEFT, str(total), change), total)
        sign = put(SIGN, "+" if change > 0 else "-", change)
        amount = _number(put(CHANGE, str(abs(change)), change), abs(change))
        put(EQUALS, "=", change)
        result = left + (amount if _plus(sign, change) else -amount)
        total = min(max(result, 0), LARGEST_TOTAL)
        total = _number(put(RESULT, str(total), change), total)
        put(SEMICOLON, ";", change)
        step += 1
    else:
        put(ANSWER, "answer")
    put(TOTAL, str(total))
    put(LAST, END)
    return written, right


def _number(token: str, otherwise: int) -> int:
    return int(token) if token.isdigit() else otherwise


def _plus(sign: str, change: int) -> bool:
    return sign == "+" if sign in ("+", "-") else change > 0
