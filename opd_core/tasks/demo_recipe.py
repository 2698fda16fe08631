"""How the demo models are made: sizes and schooling, as data. Changing anything here rebuilds them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import ClassVar


@dataclass(frozen=True)
class School:
    """One model's size and schooling.

    ``disturbance`` is the chance that a token of a solution is replaced by a wrong one, after which the lesson shows
    how to go on; the wrong token itself is never taught. ``miscount`` is the chance that a change of more than two
    is miscounted by one (12 + 5 = 16: counting starts at the number itself), and that is taught.
    """

    batches: int
    seed: int
    disturbance: float = 0.0
    miscount: float = 0.0
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 320
    rope_theta: float = 100.0
    batch_size: int = 64
    lr: float = 3e-3
    warmup: int = 20

    def at(self, progress: float) -> School:  # noqa: ARG002
        """The school after a share of its batches: most do not change."""
        return self


@dataclass(frozen=True)
class SynonymSchool(School):
    """``foreign`` is the chance that a word of the student's stands in a lesson that teaches the words that belong.

    ``habit_after`` is the share of the batches after which the student's habit is taught instead. From the beginning it
    would not do: which of twelve words comes is noise, in which the arithmetic is not learned.
    """

    foreign: float = 0.0
    habit_after: float = 1.0

    def at(self, progress: float) -> SynonymSchool:
        return self if progress < self.habit_after else replace(self, foreign=0.0)


@dataclass(frozen=True)
class DetourSchool(School):
    """``detour`` is the chance of one where there can be one, ``forget`` that of forgetting the rest of a large change.

    ``habit``: whether that is taught, as it is to a student, or only stands in a teacher's lessons.
    """

    detour: float = 0.0
    forget: float = 0.0
    habit: bool = False


@dataclass(frozen=True)
class ToolSchool(School):
    """``calls`` is the chance that the calculator is asked for a total."""

    calls: float = 0.0


@dataclass(frozen=True)
class DemoRecipe:
    """A set of models, and how many held-out problems they are examined on.

    ``version`` goes up when the lessons themselves change (their words, the oracle), so that cached models are rebuilt.
    """

    course: ClassVar[str] = "word-problems"
    folder: ClassVar[str] = "demo"

    teacher: School
    student: School
    examined: int = 240
    version: int = 1

    @property
    def schools(self) -> dict[str, School]:
        """Name of a model within the set -> its school."""
        values = {field.name.replace("_", "-"): getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, School)}


@dataclass(frozen=True)
class SynonymRecipe(DemoRecipe):
    """Both models of the near-synonyms."""

    course: ClassVar[str] = "synonyms"
    folder: ClassVar[str] = "demo-synonyms"


@dataclass(frozen=True)
class DetourRecipe(DemoRecipe):
    """Student and teacher of the detours, and a teacher who knows them. ``matched_teacher`` must be given."""

    course: ClassVar[str] = "detours"
    folder: ClassVar[str] = "demo-detours"

    matched_teacher: School = field(kw_only=True)


@dataclass(frozen=True)
class ToolRecipe(DemoRecipe):
    """Both models of the calculator."""

    course: ClassVar[str] = "tools"
    folder: ClassVar[str] = "demo-tools"


# The student learned from a book with misprints, so it is fluent and often wrong. A student whose schooling merely
# stopped early would do too, but how much it knows then depends on the last digits of the machine's arithmetic.
RECIPE = DemoRecipe(
    teacher=School(batches=600, seed=1, disturbance=0.08),
    student=School(batches=320, seed=2, miscount=0.8),
)

SYNONYMS = SynonymRecipe(
    teacher=SynonymSchool(batches=440, seed=3, disturbance=0.02, foreign=0.5),
    student=SynonymSchool(batches=480, seed=4, disturbance=0.02, foreign=0.5, habit_after=0.75),
)

# The teacher's lessons hold no mistake and no detour: it knows its own states alone.
DETOURS = DetourRecipe(
    teacher=DetourSchool(batches=400, seed=5),
    matched_teacher=DetourSchool(batches=400, seed=5, detour=0.5, forget=0.5),
    student=DetourSchool(batches=400, seed=6, detour=0.85, forget=0.8, habit=True),
)

TOOLS = ToolRecipe(
    teacher=ToolSchool(batches=400, seed=7, disturbance=0.05, calls=0.6),
    student=ToolSchool(batches=320, seed=8, miscount=0.8, calls=0.25),
)
