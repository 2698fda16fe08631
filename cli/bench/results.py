"""Every figure of the report, as data: results.json. What was not measured is null, never a guess."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from cli.bench.cells import Matrix
from cli.bench.checklist import checklist
from cli.bench.outcomes import Table, table
from cli.bench.plan import TEACHER, TESTED_FROM, UNTRAINED, Plan, effect_weights, factors, weights
from cli.bench.prompts import at_equal_prompts
from cli.bench.record import AXES, Record
from cli.bench.sampled import sampled
from opd_core.statistics import Estimate, area, estimate, holm, ratio
from opd_core.statistics import wins as share_of_wins

Json = dict[str, Any]
Reading = TypeVar("Reading")


def results(plan: Plan, matrix: Matrix, records: list[Record]) -> Json:
    """The whole report as data."""
    order = _order(plan, matrix)
    records = [record for record in records if record.arm in order]
    tables = {task.name: table(task.name, records) for task in plan.tasks}
    wanted = len(matrix.cells)
    ours = [record for record in records if record.key.startswith("bench-")]
    return {
        "plan": plan.model_dump(mode="json"),
        "runs": {
            "planned": wanted,
            "ended": len(ours),
            "failed": [_failure(record) for record in records if record.status != "succeeded"],
            "missing": wanted - len(ours),
            "peers": len(records) - len(ours),
        },
        "controls_left_out": matrix.left_out,
        "tasks": {name: _task(plan, found, order, records) for name, found in tables.items()},
        "contrasts": _contrasts(plan, matrix, tables, test=True),
        "sampled": _sampled(plan, matrix, tables, records),
        "equal_prompts": _equal_prompts(plan, matrix, tables, records),
        "effects": _effects(plan, tables),
        "checklist": {arm: checklist(plan, [record for record in records if record.arm == arm]) for arm in order},
        "versions": _versions(records),
        "hosts": sorted({record.host for record in records if record.host}),
    }


def _order(plan: Plan, matrix: Matrix) -> list[str]:
    """Of every table: arms with controls, then peers."""
    return [arm.name for arm in matrix.arms] + [peer.name for peer in plan.peers]


def _failure(record: Record) -> Json:
    return {"arm": record.arm, "task": record.task, "seed": record.seed, "job": record.job, "why": record.error}


def _task(plan: Plan, found: Table, order: list[str], records: list[Record]) -> Json:
    own = [record for record in records if record.task == found.task]
    reach = [x[-1] for record in own if (x := _known(record, "teacher_tokens")) and record.status == "succeeded"]
    common = min(reach, default=None)
    names = [UNTRAINED, *order, TEACHER]
    return {
        "common_teacher_tokens": common,
        "shared_problems": found.shared,
        "arms": {
            name: _arm(plan, found, name, [record for record in own if record.arm == name], common)
            for name in names
            if name in found.by_arm or any(record.arm == name for record in own)
        },
        "wins": _wins(plan, found, [name for name in names if name in found.by_arm]),
    }


def _arm(plan: Plan, found: Table, name: str, runs: list[Record], common: float | None) -> Json:
    seeds = found.seeds([name])
    good = [record for record in runs if record.status == "succeeded"]
    outcomes = found.outcomes(name, seeds) if seeds else None
    figures: Json = {
        "seeds": seeds,
        "runs": len(runs),
        "failed": len(runs) - len(good),
        "accuracy": None if outcomes is None else _told(_sure(plan, found, outcomes, (0.0, 1.0))),
        "before": None,
        "gap_recovered": None,
        "best": _spread(max(y) for record in good if (y := _known(record, "accuracy"))),
        "area": _spread(_area(record, common) for record in good),
        "forgotten": None,
        "length": _spread(_mean(record.outcomes.length) for record in good if record.outcomes),
        "truncated": _spread(_mean(record.outcomes.truncated) for record in good if record.outcomes),
        "side": {
            key: _spread(record.end.get(key) for record in good)
            for key in ("entropy_student", "length_mean", "truncated", "repetition")
        },
        "pass_at_k": _spread(_passed(record) for record in good),
        "out_of_distribution": _spread(y[-1] for record in good if (y := _known(record, "ood_accuracy"))),
        "sizes": _by_key(record.sizes for record in good),
        "spent": _spent(good),
        "warnings": sorted({warning for record in good if record.report for warning in record.report["warnings"]}),
    }
    if outcomes is not None and name in found.before:
        before = np.stack([found.before[name][seed] for seed in seeds])
        figures["before"] = float(before.mean())
        figures["forgotten"] = float(1.0 - outcomes[before > 0].mean()) if before.any() else None
        if all(seed in found.teacher.get(name, {}) for seed in seeds):
            lead = np.stack([found.teacher[name][seed] for seed in seeds]) - before
            gap = ratio(outcomes - before, lead, shared=found.shared, resamples=plan.resamples)
            figures["gap_recovered"] = None if gap is None else _told(gap)
    return figures


def _wins(plan: Plan, found: Table, names: list[str]) -> Json:
    """Of the problems that exactly one of two solves: the share that the first does; and in how many seeds it leads."""
    wins: dict[str, Json] = {name: {} for name in names}
    for one, other in itertools.combinations(names, 2):
        seeds = found.seeds([one, other])
        if not seeds:
            continue
        ahead = found.contrast({one: 1.0, other: -1.0}, seeds)
        share = share_of_wins(ahead, shared=found.shared, resamples=plan.resamples)
        told = None if share is None else _told(share)
        lead = ahead.mean(1)
        first = float((lead > 0).sum() + 0.5 * (lead == 0).sum())
        wins[one][other] = {"share": told, "seeds_ahead": first, "seeds": len(seeds)}
        wins[other][one] = {"share": _reversed(told), "seeds_ahead": len(seeds) - first, "seeds": len(seeds)}
    return wins


def _reversed(share: Json | None) -> Json | None:
    """The other arm's share: what is left to 1."""
    if share is None:
        return None
    low, high = (None if bound is None else 1.0 - bound for bound in (share["high"], share["low"]))
    return {**share, "value": 1.0 - share["value"], "low": low, "high": high}


def _contrasts(plan: Plan, matrix: Matrix, tables: dict[str, Table], *, test: bool) -> list[Json]:
    told = []
    for contrast in plan.contrasts:
        chosen = [tables[contrast.task]] if contrast.task else list(tables.values())
        told.append({"name": contrast.name, **_difference(plan, chosen, weights(contrast, matrix.arms), test=test)})
    tested = [one for one in told if one["tested"]]
    for one, corrected in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["p_holm"] = corrected
    return told


def _equal_prompts(plan: Plan, matrix: Matrix, tables: dict[str, Table], records: list[Record]) -> Json | None:
    """None without a budget, where all runs have the same prompts at their end, and without a common step."""
    reached = {name: at_equal_prompts(found, records) for name, found in tables.items()} if plan.budget else {}
    known = _of_all_tasks(plan, reached)
    if known is None:
        return None
    where = {
        name: {"steps": one.steps, "prompts": one.prompts, "left_out": one.left_out} for name, one in known.items()
    }
    return {"where": where, **_view(plan, matrix, {name: one.table for name, one in known.items()})}


def _sampled(plan: Plan, matrix: Matrix, tables: dict[str, Table], records: list[Record]) -> Json | None:
    """None where the runs of a task drew no samples."""
    known = _of_all_tasks(plan, {name: sampled(found, records) for name, found in tables.items()})
    return None if known is None else _view(plan, matrix, known)


def _of_all_tasks(plan: Plan, found: dict[str, Reading | None]) -> dict[str, Reading] | None:
    """None where one has none: contrasts are over the tasks together."""
    known = {name: one for name, one in found.items() if one is not None}
    return known if len(known) == len(plan.tasks) else None


def _view(plan: Plan, matrix: Matrix, tables: dict[str, Table]) -> Json:
    """The same runs read another way: every arm and every contrast with intervals, and no second test."""
    arms = {
        name: {
            arm: _told(_sure(plan, found, found.outcomes(arm, found.by_arm[arm]), (0.0, 1.0)))
            for arm in [UNTRAINED, *_order(plan, matrix), TEACHER]
            if arm in found.by_arm
        }
        for name, found in tables.items()
    }
    return {"arms": arms, "contrasts": _contrasts(plan, matrix, tables, test=False)}


def _effects(plan: Plan, tables: dict[str, Table]) -> list[Json]:
    """Main effects and interactions of a factorial plan, task by task: intervals, no tests."""
    told = []
    levels = dict(factors(plan.arms))
    steps = {factor: [(level, of[0]) for level in of[1:]] for factor, of in levels.items()}
    singles = [{factor: step} for factor, of in steps.items() for step in of]
    pairs = [
        {first: a, second: b}
        for first, second in itertools.combinations(steps, 2)
        for a, b in itertools.product(steps[first], steps[second])
    ]
    for found, effect in itertools.product(tables.values(), [*singles, *pairs]):
        if scheme := effect_weights(effect, plan.arms):
            told.append({"task": found.task, "effect": effect, **_difference(plan, [found], scheme, test=False)})
    return told


def _difference(plan: Plan, tables: list[Table], scheme: dict[str, float], *, test: bool) -> Json:
    """The contrast over the tasks together: every problem counts the same."""
    seeds = sorted(set.intersection(*(set(found.seeds(scheme)) for found in tables)))
    blank = {"weights": scheme, "seeds": seeds, "estimate": None, "tested": False, "p": None, "p_holm": None}
    if not seeds:
        return blank
    together = np.concatenate([found.contrast(scheme, seeds) for found in tables], axis=1)
    if together.shape[1] == len(tables):  # each task has one number a seed: tasks are no sample to draw from
        together = together.mean(1, keepdims=True)
    limit = sum(map(abs, scheme.values())) / 2
    shared = all(found.shared for found in tables)
    one = estimate(together, shared=shared, resamples=plan.resamples, bounds=(-limit, limit))
    tested = test and len(seeds) >= TESTED_FROM
    return {**blank, "estimate": _told(one), "tested": tested, "p": one.p if tested else None}


def _sure(plan: Plan, found: Table, outcomes: Any, bounds: tuple[float, float]) -> Estimate:
    return estimate(outcomes, shared=found.shared, resamples=plan.resamples, bounds=bounds)


def _told(one: Estimate) -> Json:
    return {key: value for key, value in asdict(one).items() if key != "p"}


def _spent(runs: list[Record]) -> Json:
    budgets = [record.report["budget"] for record in runs if record.report]
    spent = {
        name: _spread(budget.get(name) for budget in budgets)
        for name in (*AXES, "teacher_written_tokens", "eval_flops")
    }
    phases = _by_key(budget.get("wall_s_by_phase", {}) for budget in budgets)
    steps = _spread(record.report.get("steps") for record in runs if record.report)
    return {**spent, "steps": steps, "wall_s_by_phase": phases}


def _area(record: Record, common: float | None) -> float | None:
    x, y = _known(record, "teacher_tokens"), _known(record, "accuracy")
    return None if common is None or x is None or y is None else area(x, y, common)


def _passed(record: Record) -> float | None:
    """The share of problems that at least one sample solves."""
    solved = record.outcomes.samples_solved if record.outcomes else None
    return None if solved is None else sum(count > 0 for count in solved) / len(solved)


def _known(record: Record, name: str) -> list[float] | None:
    """A column of the curve without holes; None where the run did not record it."""
    values = record.curve.get(name) or []
    known = [value for value in values if value is not None]
    return known if known and len(known) == len(values) else None


def _versions(records: Iterable[Record]) -> Json:
    """Version -> its values over all runs: more than one means that runs were not made alike."""
    found: dict[str, list[Any]] = {}
    for record in records:
        for name, value in (record.report or {}).get("versions", {}).items():
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return found


def _by_key(mappings: Iterable[dict[str, float]]) -> dict[str, float]:
    rows = list(mappings)
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: statistics.fmean(row.get(key, 0.0) for row in rows) for key in keys}


def _mean(values: list[Any] | None) -> float | None:
    return statistics.fmean(map(float, values)) if values else None


def _spread(values: Iterable[float | None]) -> Json | None:
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    sd = statistics.stdev(known) if len(known) > 1 else None
    return {"n": len(known), "mean": statistics.fmean(known), "sd": sd, "min": min(known), "max": max(known)}
