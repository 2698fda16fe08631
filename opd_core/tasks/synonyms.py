"""The built-in task of near-synonyms: word problems that say "=" in words, and which word depends on the thing.

    Ann has 12 apples . First she buys 5 . Then she loses 3 . How many ?
    First 12 + 5 makes 17 ; Then 17 - 3 equals 14 ; answer 14 apples

Twelve words say the same, and two of them belong to every thing: makes and equals to apples, is and counts to books. A
solution is right if its number is right and all its words belong to its thing.

What it isolates: vocabulary routing. demo/synonyms-student can calculate; it only writes its favourite words whatever
the thing, which belong to apples, and has all twelve at hand. A word that is suppressed leaves most of its mass to ten
others that are as wrong, unless it is sent to the two that belong. Those are within reach (some of its mass is theirs)
and the only ones that demo/synonyms-teacher supports. What was written before changes nothing of this: the teacher
knows what comes next behind any of the words, and no word changes a total.

Three difficulties, told apart by how far the words that belong are from what the student says: in demo/synonyms-near
there are only the things of its favourites (a quarter of its words belong), in demo/synonyms-far only those whose words
it says least (a tenth), in demo/synonyms all six.
"""

from __future__ import annotations

import re

from opd_core.tasks import word_problems
from opd_core.tasks.word_problems import ORDER, THINGS, Level, Story, Writing

TASK = "demo/synonyms"
LEVELS = {
    "demo/synonyms-near": Level(changes=(1, 2), longer=(3, 3), things=THINGS[:2]),
    TASK: Level(changes=(1, 2), longer=(3, 3)),
    "demo/synonyms-far": Level(changes=(1, 2), longer=(3, 3), things=THINGS[-2:]),
}

WORDS = (
    *("makes", "equals"),  # apples
    *("is", "counts"),  # books
    *("yields", "totals"),  # coins
    *("becomes", "leaves"),  # eggs
    *("means", "shows"),  # pens
    *("reaches", "brings"),  # stamps
)

_STEP = rf"(?:{'|'.join(ORDER)}) \d+ [+-] \d+ (?:{'|'.join(WORDS)}) \d+ ; "
_SOLUTION = re.compile(rf"(?:{_STEP})+answer (\d+ (?:{'|'.join(THINGS)}))")


def belonging(thing: str) -> tuple[str, str]:
    """The two words of a thing."""
    first, second = WORDS[2 * THINGS.index(thing) :][:2]
    return first, second


def solution(story: Story) -> str:
    """A worked solution: the first of the two words, where both are right."""
    return f"{word_problems.solution(story).replace('=', belonging(story.thing)[0])} {story.thing}"


def answer(story: Story) -> str:
    """The number and the thing: with them a verifier knows which words belong."""
    return f"{story.answer} {story.thing}"


def verify(completion: str, answer: str) -> bool:
    """Well-formed, the number and the thing are right, and every word belongs to the thing."""
    if word_problems.answered(completion, _SOLUTION) != answer:
        return False
    own = belonging(answer.split()[1])
    return all(word in own for word in completion.split() if word in WORDS)


WRITING = Writing(student="demo/synonyms-student", words=WORDS, solution=solution, answer=answer, verify=verify)
