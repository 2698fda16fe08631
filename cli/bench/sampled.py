"""The same runs by their samples: the share of right answers among those drawn as rollouts are (schedule.pass_at_k).

Greedy accuracy takes the likeliest token at every step, however flat the distribution is. A method that spreads mass
can raise it and write worse rollouts; only samples show that.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cli.bench.outcomes import Examined, Table, same_start
from cli.bench.plan import UNTRAINED
from cli.bench.record import Record


def sampled(found: Table, records: Iterable[Record]) -> Table | None:
    """Like ``found``, with the share of right samples of each problem. None where nothing was sampled.

    A failed run counts with the student that it began with, as it does in ``found``.
    """
    own = [record for record in records if record.task == found.task]
    sizes = {size for record in own if (size := _samples(record))}
    if not sizes:
        return None
    by_arm: dict[str, dict[int, Examined]] = {}
    for record in own:
        start = record.outcomes or same_start(record, own)
        if start is None:
            continue
        of = _samples(record) or max(sizes)
        first = _shares(start.problems, start.samples_solved_before, of)
        succeeded = record.status == "succeeded" and record.outcomes is not None
        last = _shares(start.problems, start.samples_solved, of) if succeeded else first
        for arm, shares in ((UNTRAINED, first), (record.arm, last)):
            if shares is not None:
                by_arm.setdefault(arm, {}).setdefault(record.seed, shares)
    return Table(found.task, by_arm, {}, {}, found.shared)


def share_right(record: Record) -> float | None:
    """The share of right samples at the end of one run; None where it drew none."""
    solved, of = record.outcomes.samples_solved if record.outcomes else None, _samples(record)
    return sum(solved) / len(solved) / of if solved and of else None


def _samples(record: Record) -> int:
    """Of each problem; 0 where the run drew none, or is not known to have."""
    return 0 if record.report is None else int(record.report["spec"]["schedule"]["pass_at_k"])


def _shares(problems: list[int], solved: list[int] | None, of: int) -> Examined | None:
    return None if solved is None else (tuple(problems), np.asarray(solved, float) / of)
