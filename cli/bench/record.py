"""What is kept of one run: enough for every figure of the report, without asking the service again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

AXES = ("student_tokens", "teacher_tokens", "flops", "wall_s")
_LATE = 10
"""Side effects are means over so many steps at the end: one step is noise."""
_SIDE = ("length_mean", "truncated", "entropy_student", "repetition", "rollout_accuracy")
_EXAMINED = ("accuracy", "ood_accuracy")
_START = ("kl", "overlap", "entropy_student", "entropy_teacher")


class Outcomes(BaseModel):
    """Right or wrong for each held-out problem; None where it was not found out.

    samples_solved: how many of the samples of each (schedule.pass_at_k) were right at the end, and before training.
    """

    problems: list[int]
    before: list[bool]
    after: list[bool] | None
    teacher: list[bool] | None
    length: list[int] | None = None
    truncated: list[bool] | None = None
    samples_solved: list[int] | None = None
    samples_solved_before: list[int] | None = None


class Record(BaseModel):
    """One run, by whichever system. ``status``: succeeded, failed or cancelled.

    curve: the evaluated steps (``step``, ``accuracy`` and what was spent). start and end: means of metrics of the first
    step and of the last ones; sizes: mean size of each part of the update over the run.
    """

    model_config = ConfigDict(extra="forbid")

    arm: str
    task: str
    seed: int
    key: str
    job: str | None
    status: str
    error: str | None = None
    host: str | None = None
    report: dict[str, Any] | None = None
    outcomes: Outcomes | None = None
    curve: dict[str, list[float | None]] = {}
    start: dict[str, float] = {}
    end: dict[str, float] = {}
    sizes: dict[str, float] = {}

    @property
    def label(self) -> str:
        return f"{self.arm}.{self.task}.s{self.seed}"


Series = Mapping[str, Sequence[float | None]]


def curve(steps: Sequence[int], series: Series) -> dict[str, list[float | None]]:
    """The evaluated steps of a run: ``step``, what was found and what was spent, which is nothing before the first."""
    accuracy = series.get("accuracy", [None] * len(steps))
    places = [place for place, value in enumerate(accuracy) if value is not None]
    found: dict[str, list[float | None]] = {
        "step": [float(steps[place]) for place in places],
        **{name: [series[name][place] for place in places] for name in _EXAMINED if name in series},
    }
    for axis in AXES:
        values = series.get(axis)
        found[axis] = [0.0 if steps[place] == 0 else (None if values is None else values[place]) for place in places]
    return found


def summary(steps: Sequence[int], series: Series) -> dict[str, dict[str, float]]:
    """``start``, ``end`` and ``sizes`` of a record."""
    trained = [place for place, step in enumerate(steps) if step > 0]
    first = trained[:1]
    return {
        "start": _means(series, _START, first),
        "end": _means(series, _SIDE, trained[-_LATE:]),
        "sizes": _means(series, [name for name in series if name.startswith("size_")], trained),
    }


def _means(series: Series, names: Sequence[str], places: Sequence[int]) -> dict[str, float]:
    found = {}
    for name in names:
        known = [value for place in places if name in series and (value := series[name][place]) is not None]
        if known:
            found[name] = sum(known) / len(known)
    return found
