"""Lessons of the near-synonyms: the student learns habits, the teacher what belongs, whatever stands before it."""

from __future__ import annotations

import random

from opd_core.tasks.demo_recipe import SynonymSchool
from opd_core.tasks.lessons import slip
from opd_core.tasks.oracle import write
from opd_core.tasks.synonyms import WORDS, belonging
from opd_core.tasks.word_problems import Story

_SHARES = (0.30, 0.22, 0.17, 0.13, 0.10, 0.08)
"""Of the student's words, those that belong to each thing. Its favourites are the same for all things: right for one,
wrong for the others, and further from right the later a thing stands."""
_FIRST_OF_TWO = 0.6

HABIT = [share * part for share in _SHARES for part in (_FIRST_OF_TWO, 1.0 - _FIRST_OF_TWO)]
"""The student's chance of each of the twelve words."""


def lesson(story: Story, school: SynonymSchool, generator: random.Random) -> tuple[list[str], list[str]]:
    """(written, taught). Where ``foreign`` is 0 the student's habit is written and taught.

    Else a word of habit stands there as often as ``foreign`` says, and one that belongs is taught.
    """
    signs, right = write(story, lambda slot, token, _: slip(slot, token, school.disturbance, generator))
    written, taught = [], []
    for stands, due in zip(signs, right, strict=True):
        if due != "=":
            written.append(stands)
            taught.append(due)
            continue
        usual = generator.choices(WORDS, weights=HABIT)[0]
        fitting = generator.choice(belonging(story.thing))
        taught.append(fitting if school.foreign else usual)
        written.append(usual if not school.foreign or generator.random() < school.foreign else fitting)
    # The thing comes before the end, which is the last token and never disturbed.
    return [*written[:-1], story.thing, written[-1]], [*taught[:-1], story.thing, taught[-1]]
