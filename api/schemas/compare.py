"""Several runs side by side."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.base import Schema
from opd_core.runs.states import Status

Axis = Literal["step", "student_tokens", "teacher_tokens", "flops", "wall_s"]


class Spread(Schema):
    """A figure over the runs of an arm that have it. It says how far they lie apart, not whether arms differ."""

    n: int
    mean: float
    min: float
    max: float
    sd: float | None = Field(description="Standard deviation of the sample; null for a single run.")


class Interval(Schema):
    """A figure with its 95 % interval, by a bootstrap over seeds and, within them, problems; one seed gives none."""

    value: float
    low: float | None
    high: float | None


class Duel(Schema):
    """Two arms, problem by problem, under the seeds that both have: a seed draws the same problems for all."""

    left: str = Field(description="Key of an arm.")
    right: str
    seeds: list[int]
    problems: int = Field(description="Of each seed.")
    difference: Interval = Field(description="Accuracy at the end, left less right.")
    wins: Interval | None = Field(
        description="Of the problems that exactly one of both solves, the share that left does; null without any."
    )


class ComparedRun(Schema):
    """One run, its series against the chosen axis. ``x`` and every series have one entry per entry of ``steps``."""

    id: str
    name: str
    recipe: str
    seed: int
    status: Status
    arm: str = Field(description="Key of the arm that it belongs to.")
    step: int | None = None
    total: int | None = None
    teacher: float | None = Field(None, description="The teacher's accuracy: the ceiling.")
    reach: float | None = Field(None, description="Where its newest evaluation lies on the axis.")
    steps: list[int]
    x: list[float | None] = Field(description="null where the run did not record the axis.")
    series: dict[str, list[float | None]]


class Arm(Schema):
    """Runs of one resolved spec, seeds and names aside. A figure is null where none of them has it."""

    key: str = Field(description="A, B, C... in the order of the request.")
    recipe: str
    jobs: list[str]
    seeds: list[int]
    n: int
    unfinished: int = Field(description="Runs that have not succeeded (yet): their figures are the newest they have.")
    accuracy_before: Spread | None
    accuracy_after: Spread | None
    gap_recovered: Spread | None
    accuracy_at_budget: Spread | None
    accuracy_to_budget: Spread | None = Field(None, description="Mean accuracy on the way there: the area under it.")
    accuracy_interval: Interval | None = Field(
        None, description="Accuracy at the end of the runs that have ended, problem by problem."
    )
    student_tokens: Spread | None
    teacher_tokens: Spread | None
    flops: Spread | None
    wall_s: Spread | None = Field(description="Seconds of training: rollouts, teacher, update, telemetry.")


class Difference(Schema):
    """A field of the resolved specs that is not the same in all arms."""

    path: str = Field(examples=["method.credit.estimator"])
    values: dict[str, Any] = Field(description="By arm; an arm without the field, or with null in it, is not listed.")


class Comparison(Schema):
    """Runs, their curves against one axis, and their head-to-head.

    ``budget`` is the largest one up to which every run was evaluated; accuracies there are interpolated linearly
    between a run's evaluations.
    """

    object: Literal["comparison"] = "comparison"
    x: Axis
    budget: float | None
    without_budget: list[str] = Field(description="Runs without an evaluation on this axis: the budget ignores them.")
    runs: list[ComparedRun]
    arms: list[Arm]
    duels: list[Duel] = Field([], description="Of arms that have a seed in common.")
    differences: list[Difference]


class RecordedPlace(Schema):
    """Where a sequence is recorded."""

    step: int
    n: int
    correct: bool | None


class SharedProblem(Schema):
    """A problem of which both runs recorded what their students wrote, each at the place nearest to a step."""

    problem: int
    prompt: str
    left: RecordedPlace
    right: RecordedPlace
    distance: int = Field(description="Steps that the two places lie away from the wanted one, together.")
