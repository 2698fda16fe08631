"""The built-in task of detours: a student and a teacher who work in different ways.

    Ann has 12 apples . First she buys 5 . Then she loses 2 . How many ?
    First 12 + 5 = 17 ; Then 17 - 2 = 15 ; answer 15                       as demo/detours-teacher writes
    First 12 + 2 = 14 ; rest 14 + 3 = 17 ; Then 17 - 2 = 15 ; answer 15    as demo/detours-student writes

The student goes a change of more than two in halves, the smaller one first, and then often forgets the rest, mostly
that of a large change. Both ways are right where they arrive: a verifier looks at the last number only.

What it isolates: state compatibility. demo/detours-teacher has seen no detour in its life. It is right on everything
it writes itself, also at the place where a detour begins; within one it takes the half for the whole and tells the
student to leave the rest out, which is how the student fails. demo/detours-matched-teacher writes the same solutions
but knows how a detour goes on: the control. What differs between two runs with these teachers is compatibility alone.

Three difficulties, told apart by how much of what the student writes is foreign to its teacher: a third of all changes
can go in halves in demo/detours-few (where the rest is seldom forgotten, too), six in ten in demo/detours, all in
demo/detours-many.
"""

from __future__ import annotations

import re

from opd_core.tasks.word_problems import LARGEST_CHANGE, ORDER, Level, Writing, answer, answered, solution

TASK = "demo/detours"
LEVELS = {
    "demo/detours-few": Level(changes=(1, 2), longer=(3, 3), sizes=(1, 3)),
    TASK: Level(changes=(1, 2), longer=(3, 3)),
    "demo/detours-many": Level(changes=(1, 2), longer=(3, 3), sizes=(3, LARGEST_CHANGE)),
}
REST = "rest"
DIRECT = 2
"""Changes up to this are never halved."""

_STEP = rf"(?:{'|'.join((*ORDER, REST))}) \d+ [+-] \d+ = \d+ ; "
_SOLUTION = re.compile(rf"(?:{_STEP})+answer (\d+)")


def verify(completion: str, answer: str) -> bool:
    """Well-formed (steps, with detours or without, then the answer, then nothing) and the final number is right."""
    return answered(completion, _SOLUTION) == answer


WRITING = Writing(student="demo/detours-student", words=(REST,), solution=solution, answer=answer, verify=verify)
