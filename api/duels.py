"""Arms against each other, problem by problem: runs of one seed were examined on the same problems."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from api import schemas as s
from opd_core.statistics import Estimate, Floats, estimate, wins

_RESAMPLES = 2000

Examined = Mapping[int, tuple[tuple[int, ...], Floats]]
"""Seed -> ids of the problems, and 1 or 0 for each, at the end of the run."""


def examined(evaluations: Mapping[int, s.Evaluation | None]) -> Examined:
    """What the runs of one arm solve, by seed; runs that have not been examined at their end are left out."""
    return {
        seed: (tuple(found.problems), np.asarray(found.after.correct, float))
        for seed, found in evaluations.items()
        if found is not None and found.after is not None
    }


def accuracy(arm: Examined, *, shared: bool) -> s.Interval | None:
    """Mean accuracy at the end, sure over seeds and problems; None where the seeds had other numbers of problems."""
    rows = [solved for _, solved in arm.values()]
    if not rows or len({len(row) for row in rows}) > 1:
        return None
    return _told(estimate(np.stack(rows), shared=shared, resamples=_RESAMPLES, bounds=(0.0, 1.0)))


def duels(arms: Sequence[tuple[str, Examined]], *, shared: bool) -> list[s.Duel]:
    """Every pair of arms that have a seed in common under which both were examined on the same problems.

    ``shared``: the problems are the same under every seed.
    """
    found = (_duel(left, right, shared) for left, right in itertools.combinations(arms, 2))
    return [duel for duel in found if duel is not None]


def _duel(left: tuple[str, Examined], right: tuple[str, Examined], shared: bool) -> s.Duel | None:
    (one, ours), (other, theirs) = left, right
    seeds = sorted(seed for seed in ours.keys() & theirs.keys() if ours[seed][0] == theirs[seed][0])
    if not seeds or len({len(ours[seed][0]) for seed in seeds}) > 1:
        return None
    ahead = np.stack([ours[seed][1] - theirs[seed][1] for seed in seeds])
    won = wins(ahead, shared=shared, resamples=_RESAMPLES)
    return s.Duel(
        left=one,
        right=other,
        seeds=seeds,
        problems=ahead.shape[1],
        difference=_told(estimate(ahead, shared=shared, resamples=_RESAMPLES, bounds=(-1.0, 1.0))),
        wins=None if won is None else _told(won),
    )


def _told(found: Estimate) -> s.Interval:
    return s.Interval(value=found.value, low=found.low, high=found.high)
