"""Lessons with a calculator: the student's way, mostly without it, and the teacher's, which always asks."""

from __future__ import annotations

import random

from opd_core.tasks.demo_recipe import ToolSchool
from opd_core.tasks.lessons import miscount, slip
from opd_core.tasks.oracle import CHANGE, EQUALS, LEFT, RESULT, SIGN, write
from opd_core.tasks.tools import CALL, said
from opd_core.tasks.word_problems import Story

_CALLED = f"{CALL} ="


def lesson(story: Story, school: ToolSchool, generator: random.Random) -> tuple[list[str], list[str | None]]:
    """(written, taught). A call stands as often as ``calls`` says; the calculator's tokens are taught to nobody.

    ``miscount``: what stands is taught, as a student's way: calls now and then, and miscounts without them. Else a call
    is taught wherever there can be one, and after an "=" the right result.
    """
    operands: list[str] = []

    def disturb(slot: int, token: str, change: int) -> str:
        if slot == EQUALS and generator.random() < school.calls:
            return _CALLED
        if slot == RESULT and operands[3] == _CALLED:
            return said([*operands[:3], CALL])[1]
        if school.miscount:
            return miscount(slot, token, change, school.miscount, generator)
        return slip(slot, token, school.disturbance, generator)

    def put(slot: int, token: str, change: int) -> str:
        stands = disturb(slot, token, change)
        if slot == LEFT:
            operands.clear()
        if slot in (LEFT, SIGN, CHANGE, EQUALS):
            operands.append(stands)
        return stands

    written: list[str] = []
    taught: list[str | None] = []
    called = False  # whether the result is the calculator's
    for stands, right in zip(*write(story, put), strict=True):
        due: list[str | None] = [right]
        if right == "=":
            due = [stands.split()[0] if school.miscount else CALL]
        elif called:
            due, called = [None], False
        if stands == _CALLED:
            due, called = [*due, None], True
        written += stands.split()
        taught += [stands] if school.miscount and due == [right] else due
    return written, taught
