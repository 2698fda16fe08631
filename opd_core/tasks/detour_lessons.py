"""Lessons of the detours: the student's way with the rest forgotten now and then, and the way without detours."""

from __future__ import annotations

import random

from opd_core.tasks.demo_recipe import DetourSchool
from opd_core.tasks.detours import DIRECT, REST
from opd_core.tasks.oracle import END
from opd_core.tasks.word_problems import ORDER, Story

_LARGE = 5
"""From this size on a rest is forgotten as often as ``forget`` says, below it as seldom as 1 - ``forget``."""


def lesson(story: Story, school: DetourSchool, generator: random.Random) -> tuple[list[str], list[str]]:
    """(written, taught). ``habit``: the detours and what is forgotten are taught, as a student's way.

    Else they only stand there, as often as ``detour`` says: the direct way is taught where one begins, the rest where
    one is under way. With ``detour`` 0 there is nothing but the direct way.
    """
    written: list[str] = []
    taught: list[str] = []

    def put(right: str, stands: str | None = None) -> None:
        written.append(right if stands is None else stands)
        taught.append(written[-1] if school.habit else right)

    def step(when: str, amount: int, whole: int, instead_of: str | None = None) -> None:
        """One step of ``amount``, where ``whole`` would be the direct way; ``when`` stands where another belongs."""
        nonlocal total
        put(instead_of or when, when)
        put(str(total))
        put("+" if amount > 0 else "-")
        put(str(abs(whole)), str(abs(amount)))
        put("=")
        total += amount
        put(str(total))
        put(";")

    total, forgotten = story.start, False
    for when, change in zip(ORDER, story.changes, strict=False):
        missed = REST if forgotten else None
        forgotten = False
        if abs(change) <= DIRECT or generator.random() >= school.detour:
            step(when, change, change, missed)
            continue
        half = abs(change) // 2 * (1 if change > 0 else -1)
        step(when, half, change, missed)
        forgotten = generator.random() < (school.forget if abs(change) >= _LARGE else 1.0 - school.forget)
        if not forgotten:
            step(REST, change - half, change - half)
    put(REST if forgotten else "answer", "answer")
    put(str(total))
    put(END)
    return written, taught
