"""One lesson of the word problems: the tokens of a solution, and the token that is taught in place of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from opd_core.tasks import word_problems
from opd_core.tasks.demo_recipe import School
from opd_core.tasks.oracle import LAST, RESULT, SIGN, WHEN, write
from opd_core.tasks.word_problems import LARGEST_TOTAL, Story

Lesson = Callable[[Story, Any, random.Random], tuple[list[str], Sequence[str | None]]]
"""(story, the school of the model, random numbers) -> (written, taught), token by token, the end included.

Where None is taught the token is not the student's, and nothing is."""


def lesson(story: Story, school: School, generator: random.Random) -> tuple[list[str], list[str]]:
    """A solution with miscounts that are taught, or one with slips that are not."""
    if school.miscount:
        written, _ = write(story, lambda slot, token, change: miscount(slot, token, change, school.miscount, generator))
        return written, written
    return write(story, lambda slot, token, _: slip(slot, token, school.disturbance, generator))


def miscount(slot: int, token: str, change: int, chance: float, generator: random.Random) -> str:
    """A result that is one short, as if counting had started at the number itself: 12 + 5 = 16, 12 - 5 = 8."""
    if slot != RESULT or abs(change) <= 2 or generator.random() >= chance:
        return token
    return str(int(token) - (1 if change > 0 else -1))


def slip(slot: int, token: str, chance: float, generator: random.Random) -> str:
    """Now and then another token than the right one: mostly one that could stand there."""
    if slot == LAST or generator.random() >= chance:
        return token
    if slot == WHEN:
        return generator.choice(("answer", *word_problems.ORDER))
    if token.isdigit():
        return str(generator.randint(0, LARGEST_TOTAL))
    if slot == SIGN:
        return generator.choice("+-")
    return generator.choice(("=", ";", "answer", "+", "-", str(generator.randint(0, LARGEST_TOTAL))))
