"""The built-in task with a calculator: word problems whose totals the student may have worked out for it.

    Ann has 12 apples . First she buys 5 . Then she loses 3 . How many ?
    First 12 + 5 calc = 17 ; Then 17 - 3 calc = 14 ; answer 14

After the word calc the calculator writes "= 17", from the numbers as they stand; then the student goes on. Without it
the student may write "= 17" itself.

What it isolates: states in which not every token is the student's. demo/tools-student calls now and then; mostly it
works the sum out by itself, and miscounts. demo/tools-teacher calls every time, and can go on from any state. What the
calculator writes has no force and takes no time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from opd_core.spec.tool import TOOL_TASK
from opd_core.tasks import word_problems
from opd_core.tasks.calculator import ERROR, worked_out
from opd_core.tasks.environment import Environment
from opd_core.tasks.word_problems import ORDER, Level, Story, Writing, answered

TASK = TOOL_TASK
LEVELS = {TASK: Level(changes=(1, 2), longer=(3, 3))}

CALL = "calc"
_SUM = re.compile(r"\d+ [+-] \d+")
_STEP = rf"(?:{'|'.join(ORDER)}) \d+ [+-] \d+ (?:{CALL} )?= \d+ ; "
_SOLUTION = re.compile(rf"(?:{_STEP})+answer (\d+)")


def said(words: Sequence[str]) -> list[str]:
    """What the calculator writes after a call that ends ``words``: the sum before it, or that there is none."""
    asked = " ".join(words[-4:-1])
    result = worked_out(asked) if _SUM.fullmatch(asked) else ERROR
    known = result.isdigit() and int(result) <= word_problems.LARGEST_TOTAL
    return ["=", result if known else ERROR]


def environment(tokenizer: PreTrainedTokenizerBase, turns: int) -> Environment:
    """The calculator in ids of the demo models' tokenizer."""

    def answer(stretch: Sequence[int]) -> list[int]:
        return list(tokenizer.convert_tokens_to_ids(said(tokenizer.convert_ids_to_tokens(list(stretch)))))

    return Environment(frozenset([tokenizer.convert_tokens_to_ids(CALL)]), answer, turns, longest=2)


def solution(story: Story) -> str:
    """A worked solution: every total is asked for."""
    return word_problems.solution(story).replace("=", f"{CALL} =")


def verify(completion: str, answer: str) -> bool:
    """Well-formed (steps with calls or without, then the answer, then nothing) and the final number is right."""
    return answered(completion, _SOLUTION) == answer


WRITING = Writing(
    student="demo/tools-student",
    words=(CALL, ERROR),
    solution=solution,
    answer=word_problems.answer,
    verify=verify,
    environment=environment,
)
