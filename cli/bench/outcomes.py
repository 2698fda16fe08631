"""Records as arrays: right or wrong by arm, seed and problem, paired where arms share a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cli.bench.plan import TEACHER, UNTRAINED
from cli.bench.record import Outcomes, Record
from opd_core.spec import UserError
from opd_core.statistics import Floats

Examined = tuple[tuple[int, ...], Floats]
"""Ids of the problems, and 1 or 0 for each."""


@dataclass(frozen=True)
class Table:
    """The outcomes of one task. ``by_arm[arm][seed]``; a failed run leaves the student that it began with.

    ``shared``: the same problems under every seed.
    """

    task: str
    by_arm: Mapping[str, Mapping[int, Examined]]
    before: Mapping[str, Mapping[int, Floats]]
    teacher: Mapping[str, Mapping[int, Floats]]
    shared: bool

    def seeds(self, arms: Iterable[str]) -> list[int]:
        """Seeds under which all of these arms have outcomes."""
        known = [set(self.by_arm.get(arm, {})) for arm in arms]
        return sorted(set.intersection(*known)) if known else []

    def outcomes(self, arm: str, seeds: Iterable[int]) -> Floats:
        """[seeds, problems]. Raises UserError where seeds were examined on different numbers of problems."""
        return _stacked([self.by_arm[arm][seed][1] for seed in seeds], f"arm '{arm}' on task '{self.task}'")

    def contrast(self, weights: Mapping[str, float], seeds: Iterable[int]) -> Floats:
        """The weighted sum of arms [seeds, problems]: paired, problem by problem."""
        seeds = list(seeds)
        for seed in seeds:
            if len({self.by_arm[arm][seed][0] for arm in weights}) > 1:
                raise UserError(
                    f"task '{self.task}', seed {seed}: {' and '.join(weights)} were examined on different problems, "
                    "so they cannot be compared one by one"
                )
        return np.asarray(sum(weight * self.outcomes(arm, seeds) for arm, weight in weights.items()), float)


def table(task: str, records: Iterable[Record]) -> Table:
    """The outcomes of a task's records, the untrained student and the teacher as two more arms."""
    records = [record for record in records if record.task == task]
    by_arm: dict[str, dict[int, Examined]] = {}
    before: dict[str, dict[int, Floats]] = {}
    teacher: dict[str, dict[int, Floats]] = {}
    for record in records:
        start = record.outcomes or same_start(record, records)
        if start is None:
            continue
        problems = tuple(start.problems)
        own = record.outcomes.after if record.outcomes and record.status == "succeeded" else None
        first = np.asarray(start.before, float)
        by_arm.setdefault(record.arm, {})[record.seed] = (problems, first if own is None else np.asarray(own, float))
        before.setdefault(record.arm, {})[record.seed] = first
        by_arm.setdefault(UNTRAINED, {}).setdefault(record.seed, (problems, first))
        if start.teacher is not None:
            known = np.asarray(start.teacher, float)
            teacher.setdefault(record.arm, {})[record.seed] = known
            by_arm.setdefault(TEACHER, {}).setdefault(record.seed, (problems, known))
    return Table(task, by_arm, before, teacher, _shared(records))


def same_start(record: Record, records: list[Record]) -> Outcomes | None:
    """A run that failed before it was examined began with the student of the other runs of its seed."""
    return next((other.outcomes for other in records if other.seed == record.seed and other.outcomes), None)


def _shared(records: list[Record]) -> bool:
    """Only a file of its own holds the same problems for every seed; elsewhere the seed draws them."""
    reports = [record.report for record in records if record.report]
    files = {str(report["spec"]["task"].get("eval_dataset")) for report in reports}
    same = len({tuple(record.outcomes.problems) for record in records if record.outcomes}) == 1
    return same and len(files) == 1 and files != {"None"}


def _stacked(rows: list[Floats], whose: str) -> Floats:
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"{whose}: the seeds were examined on different numbers of problems")
    return np.stack(rows)
