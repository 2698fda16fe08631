"""Intervals and tests for outcomes by seed and problem.

The unit that varies is the seed: one seed gives one student at the end, examined on many problems. How far a mean can
be off in its own standard errors is learned by bootstrap-t: a resample draws seeds, within them problems, and is
divided by its own standard error. Where all seeds were examined on the same problems the standard error is clustered
by problem as well. Plain percentiles are too narrow for few seeds; this keeps its level down to three
(tests/bench/test_statistics.py measures it). Where each seed gave one number only, there is nothing to draw within it,
and a few numbers drawn again are too often all the same: Student's t says how far off their mean can be. It stands in
for a resample whose seeds are all the same, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEVEL = 0.95
_BANK = 400
_FREE = (-np.inf, np.inf)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval (None with a single seed) and the two-sided p of no difference from 0."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    problems: int
    sd: float | None
    """Standard deviation between seeds."""


def estimate(
    outcomes: Floats, *, shared: bool, resamples: int, seed: int = 0, bounds: tuple[float, float] = _FREE
) -> Estimate:
    """The mean of outcomes [seeds, problems] and how sure it is; ``bounds``: values that it cannot leave.

    ``shared``: column p is the same problem under every seed. One column: one number a seed.
    """
    seeds, problems = outcomes.shape
    by_seed = outcomes.mean(1)
    value = float(by_seed.mean())
    if seeds < 2:
        return Estimate(value, None, None, None, seeds, problems, None)
    sd = float(by_seed.std(ddof=1))
    error = _error(outcomes, shared)
    if error == 0.0:  # every seed says the same, to the last problem
        return Estimate(value, value, value, 1.0 if value == 0.0 else 1.0 / (resamples + 1), seeds, problems, 0.0)
    t = _studentised(outcomes, value, resamples, np.random.default_rng(seed))
    reach = float(np.quantile(np.abs(t), _LEVEL, method="higher")) * error  # symmetric, so that it agrees with p
    return Estimate(
        value,
        max(bounds[0], value - reach),
        min(bounds[1], value + reach),
        float((1 + np.count_nonzero(np.abs(t) >= abs(value / error))) / (resamples + 1)),
        seeds,
        problems,
        sd,
    )


def ratio(
    above: Floats, below: Floats, *, shared: bool, resamples: int, seed: int = 0, bounds: tuple[float, float] = _FREE
) -> Estimate | None:
    """mean(above) / mean(below) with an interval by linearisation; None where the lower mean is not positive."""
    denominator = float(below.mean())
    if denominator <= 0.0:
        return None
    value = float(above.mean()) / denominator
    around = estimate((above - value * below) / denominator, shared=shared, resamples=resamples, seed=seed)
    low = None if around.low is None else max(bounds[0], value + around.low)
    high = None if around.high is None else min(bounds[1], value + around.high)
    return Estimate(value, low, high, None, around.seeds, around.problems, around.sd)


def wins(ahead: Floats, *, shared: bool, resamples: int) -> Estimate | None:
    """Of the problems that exactly one of two solves, the share that the first does; None where there is none.

    ``ahead`` [seeds, problems]: what the first solves less what the second does.
    """
    won, apart = (ahead > 0).astype(float), (ahead != 0).astype(float)
    return ratio(won, apart, shared=shared, resamples=resamples, bounds=(0.0, 1.0))


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for how many there are (Holm)."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected


def area(x: Sequence[float], y: Sequence[float], until: float) -> float | None:
    """Mean height of the curve from 0 to ``until``; None where the curve does not reach that far."""
    if len(x) < 2 or x[0] > 0 or x[-1] < until or until <= 0:
        return None
    points, heights = np.asarray(x, float), np.asarray(y, float)
    inside = points < until
    grid = np.append(points[inside], until)
    values = np.append(heights[inside], np.interp(until, points, heights))
    return float(np.trapezoid(values, grid) / until)


def _error(outcomes: Floats, shared: bool) -> float:
    """Standard error of the mean of outcomes [seeds, problems], clustered by seed, or by seed and by problem."""
    seeds, problems = outcomes.shape
    by_seed, by_problem = outcomes.mean(1), outcomes.mean(0)
    variance = by_seed.var(ddof=1) / seeds
    if shared and problems > 1:
        rest = outcomes - by_seed[:, None] - by_problem + outcomes.mean()
        within = (rest**2).sum() / ((seeds - 1) * (problems - 1)) / (seeds * problems)
        # Both ways of clustering hold what lies within a seed and a problem, so it is taken off once.
        variance = max(variance, variance + by_problem.var(ddof=1) / problems - within)
    return float(np.sqrt(variance))


def _studentised(outcomes: Floats, value: float, resamples: int, rng: np.random.Generator) -> Floats:
    seeds, problems = outcomes.shape
    if problems == 1:
        return rng.standard_t(seeds - 1, size=resamples)
    # Means of a seed over resampled problems, enough of them to draw from: one for each resample would be slow.
    bank = np.stack([row[rng.integers(problems, size=(_BANK, problems))].mean(1) for row in outcomes])
    chosen = rng.integers(seeds, size=(resamples, seeds))
    means = bank[chosen, rng.integers(_BANK, size=chosen.shape)]
    deviations, errors = means.mean(1) - value, means.std(1, ddof=1) / np.sqrt(seeds)
    # A resample without any spread (of runs that solve next to nothing) says nothing of how far off it is.
    students = rng.standard_t(seeds - 1, size=resamples)
    return np.where(errors > 0.0, deviations / np.where(errors > 0.0, errors, 1.0), students)
