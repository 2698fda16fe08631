"""Runs side by side: arms, figures at an equal budget, and what differs between the specs.

An arm is one resolved spec under any number of seeds. The equal budget is the largest one that every run has reached
with an evaluation; between two evaluations accuracy is taken to lie on a straight line, beyond the last one nothing is
known.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from api import duels, views
from api import schemas as s
from opd_core.runs.rows import Job
from opd_core.statistics import area

KEYS = ("accuracy", "kl", "loss", "length_mean", "entropy_student", "truncated")
BUDGETS = ("student_tokens", "teacher_tokens", "flops", "wall_s")
_LABELS = ("name", "seed", "metadata")  # of a spec: what does not make another arm

Rows = Sequence[tuple[int, dict[str, float | None]]]
Points = Sequence[tuple[float, float]]


def compare(
    jobs: Sequence[tuple[Job, Rows]],
    axis: s.Axis,
    keys: Sequence[str] = KEYS,
    max_points: int | None = None,
    evaluations: Mapping[str, s.Evaluation | None] | None = None,
) -> s.Comparison:
    """Jobs with their metrics, in the order in which they are shown; ``evaluations`` by job."""
    specs = [_flat({key: value for key, value in job.resolved_spec.items() if key not in _LABELS}) for job, _ in jobs]
    groups: dict[str, list[int]] = {}
    for place, spec in enumerate(specs):
        groups.setdefault(json.dumps(spec, sort_keys=True), []).append(place)
    members = {chr(ord("A") + i): places for i, places in enumerate(groups.values())}
    arm_of = {place: key for key, places in members.items() for place in places}

    curves = [_evaluations(rows, axis) for _, rows in jobs]
    budget = min((points[-1][0] for points in curves if points), default=None)
    figures = [_figures(job, rows, points, budget) for (job, rows), points in zip(jobs, curves, strict=True)]
    solved = {key: _solved([jobs[place][0] for place in places], evaluations or {}) for key, places in members.items()}
    shared = _shared_problems([job for job, _ in jobs])
    return s.Comparison(
        x=axis,
        budget=budget,
        without_budget=[job.id for (job, _), points in zip(jobs, curves, strict=True) if not points],
        runs=[
            _run(job, rows, axis, keys, max_points, arm=arm_of[place], reach=points[-1][0] if points else None)
            for place, ((job, rows), points) in enumerate(zip(jobs, curves, strict=True))
        ],
        arms=[
            _arm(
                key,
                [jobs[place][0] for place in places],
                [figures[place] for place in places],
                duels.accuracy(solved[key], shared=shared),
            )
            for key, places in members.items()
        ],
        duels=duels.duels(list(solved.items()), shared=shared),
        differences=differences({key: specs[places[0]] for key, places in members.items()}),
    )


def at(points: Points, x: float) -> float | None:
    """The value at ``x`` on the straight line between the points around it; None outside of them."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x < x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return next((y for known, y in reversed(points) if known == x), None)


def spread(values: Iterable[float | None]) -> s.Spread | None:
    """Mean, range and standard deviation of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return s.Spread(n=len(known), mean=statistics.fmean(known), min=min(known), max=max(known), sd=deviation)


def differences(specs: Mapping[str, Mapping[str, Any]]) -> list[s.Difference]:
    """Fields of flat specs that are not the same in all of them, in the order of the specs."""
    paths = dict.fromkeys(path for spec in specs.values() for path in spec)
    found = []
    for path in paths:
        values = {key: spec[path] for key, spec in specs.items() if path in spec}
        if len(values) < len(specs) or len({json.dumps(value) for value in values.values()}) > 1:
            found.append(s.Difference(path=path, values=values))
    return found


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by dotted path; an empty list or mapping is a leaf. A null says no more than a field that is not there:
    specs from before a field was added lack it.
    """
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    flat: dict[str, Any] = {}
    for key, entry in entries:
        if entry is not None:
            flat |= _flat(entry, f"{path}.{key}" if path else str(key))
    return flat or {path: value}


def _axis(rows: Rows, axis: s.Axis) -> list[float | None]:
    """The axis at every row. Nothing was spent before the first step; all null for a run that did not record it."""
    if axis == "step":
        return [float(step) for step, _ in rows]
    recorded = [values.get(axis) for _, values in rows]
    if any(value is not None for value in recorded) or all(step == 0 for step, _ in rows):
        return [0.0 if step == 0 else value for (step, _), value in zip(rows, recorded, strict=True)]
    return recorded


def _evaluations(rows: Rows, axis: s.Axis) -> list[tuple[float, float]]:
    pairs = zip(_axis(rows, axis), (values.get("accuracy") for _, values in rows), strict=True)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _run(
    job: Job,
    rows: Rows,
    axis: s.Axis,
    keys: Sequence[str],
    max_points: int | None,
    *,
    arm: str,
    reach: float | None,
) -> s.ComparedRun:
    placed = [(step, {**values, "x": x}) for (step, values), x in zip(rows, _axis(rows, axis), strict=True)]
    thinned = views.metrics(placed, [*keys, "x"], max_points)
    x = thinned.series.pop("x")
    return s.ComparedRun(
        id=job.id,
        name=job.name,
        recipe=job.recipe,
        seed=job.resolved_spec["seed"],
        status=views.job(job).status,
        arm=arm,
        step=job.progress.get("step"),
        total=job.progress.get("total"),
        teacher=job.accuracy.get("teacher"),
        reach=reach,
        steps=thinned.steps,
        x=x,
        series=thinned.series,
    )


def _figures(job: Job, rows: Rows, points: Points, budget: float | None) -> dict[str, float | None]:
    before, teacher = job.accuracy.get("before"), job.accuracy.get("teacher")
    after = job.accuracy.get("after")
    if after is None:
        after = job.accuracy.get("latest")
    gap = None
    if before is not None and after is not None and teacher is not None and teacher > before:
        gap = (after - before) / (teacher - before)
    spent = {name: next((v[name] for _, v in reversed(rows) if v.get(name) is not None), None) for name in BUDGETS}
    return {
        "accuracy_before": before,
        "accuracy_after": after,
        "gap_recovered": gap,
        "accuracy_at_budget": None if budget is None else at(points, budget),
        "accuracy_to_budget": None if budget is None else area([x for x, _ in points], [y for _, y in points], budget),
        **spent,
    }


def _solved(jobs: Sequence[Job], evaluations: Mapping[str, s.Evaluation | None]) -> duels.Examined:
    """What an arm solves; of several runs of one seed the first counts."""
    return duels.examined({job.resolved_spec["seed"]: evaluations.get(job.id) for job in reversed(jobs)})


def _shared_problems(jobs: Sequence[Job]) -> bool:
    """Only a file of its own holds the same problems for every seed; elsewhere the seed draws them."""
    files = {job.resolved_spec["task"].get("eval_dataset") for job in jobs}
    return len(files) == 1 and files != {None}


def _arm(
    key: str, jobs: Sequence[Job], figures: Sequence[Mapping[str, float | None]], sure: s.Interval | None
) -> s.Arm:
    return s.Arm(
        key=key,
        recipe=jobs[0].recipe,
        jobs=[job.id for job in jobs],
        seeds=[job.resolved_spec["seed"] for job in jobs],
        n=len(jobs),
        unfinished=sum(job.status != "succeeded" for job in jobs),
        accuracy_interval=sure,
        **{name: spread(one[name] for one in figures) for name in figures[0]},
    )
