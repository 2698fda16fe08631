"""What each set of built-in models is taught and examined on."""

from __future__ import annotations

from dataclasses import dataclass

from opd_core.tasks import (
    detour_lessons,
    detours,
    lessons,
    synonym_lessons,
    synonyms,
    tool_lessons,
    tools,
    word_problems,
)
from opd_core.tasks.lessons import Lesson
from opd_core.tasks.word_problems import Level, Writing


@dataclass(frozen=True)
class Course:
    """``level``: the problems that are taught. ``longest``: tokens of an answer, with some to spare."""

    writing: Writing
    level: Level
    lesson: Lesson
    longest: int


_UP_TO_THREE = Level(changes=(1, 3))  # one more than the tasks themselves have

COURSES = {
    "word-problems": Course(word_problems.WRITING, word_problems.ALL, lessons.lesson, 36),
    "synonyms": Course(synonyms.WRITING, _UP_TO_THREE, synonym_lessons.lesson, 32),
    "detours": Course(detours.WRITING, _UP_TO_THREE, detour_lessons.lesson, 52),
    "tools": Course(tools.WRITING, _UP_TO_THREE, tool_lessons.lesson, 32),
}
"""By the course that a recipe names."""
