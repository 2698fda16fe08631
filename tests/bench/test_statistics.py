"""Planted truth: the harness finds differences that are there, and only those."""

from __future__ import annotations

import numpy as np
import pytest

from opd_core.statistics import area, estimate, holm, ratio

WORLDS = 400  # more than the 200 that a claim about a level of 5 % needs at least


def students(
    rng: np.random.Generator, seeds: int, problems: int, skill: float = 0.0, easy: np.ndarray | None = None
) -> np.ndarray:
    """Right or wrong [seeds, problems] of one arm: runs differ, problems differ, both by a lot.

    Every seed has its own problems, as in the demo task, unless ``easy`` [1, problems] says how easy the shared ones
    are.
    """
    easy = rng.normal(0.0, 1.0, size=(seeds, problems)) if easy is None else easy
    luck = rng.normal(0.0, 0.4, size=(seeds, 1))
    return (rng.random((seeds, problems)) < 1 / (1 + np.exp(-(easy + luck + skill)))).astype(float)


@pytest.mark.parametrize(("seeds", "shared"), [(3, False), (10, False), (10, True)])
def test_two_copies_of_one_arm_differ_at_the_nominal_rate(seeds, shared):
    """Disjoint seeds, so that nothing is paired away. 400 worlds at 5 %: 8 to 32 rejections with 99.5 %."""
    rng = np.random.default_rng(1)
    found, covered = 0, 0
    for world in range(WORLDS):
        easy = rng.normal(0.0, 1.0, size=(1, 40)) if shared else None
        difference = students(rng, seeds, 40, easy=easy) - students(rng, seeds, 40, easy=easy)
        one = estimate(difference, shared=shared, resamples=300, seed=world)
        found += one.p < 0.05
        covered += one.low <= 0.0 <= one.high
    assert 8 <= found <= 32
    assert 0.91 <= covered / WORLDS <= 0.98


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_one_number_a_seed_is_as_sure_as_students_t(seeds):
    """Rounded, so that a few of them often say the same."""
    rng = np.random.default_rng(7)
    found, covered = 0, 0
    for world in range(WORLDS):
        one = estimate(rng.normal(0.0, 1.0, size=(seeds, 1)).round(1), shared=False, resamples=300, seed=world)
        found += one.p < 0.05
        covered += one.low <= 0.0 <= one.high
    assert 8 <= found <= 32
    assert 0.91 <= covered / WORLDS <= 0.98
    ties = np.array([[0.41], [0.41], [0.42], [0.42], [0.40]])
    one = estimate(ties, shared=False, resamples=20_000, bounds=(0.0, 1.0))
    assert one.high - one.value == pytest.approx(2.776 * ties.std(ddof=1) / 5**0.5, rel=0.05)  # t of four degrees


def test_runs_that_solve_next_to_nothing_have_a_narrow_interval():
    """Nine seeds of none and one of three in 200: most resamples of it have no spread."""
    outcomes = np.zeros((10, 200))
    outcomes[3, :3] = 1.0
    one = estimate(outcomes, shared=False, resamples=2000, bounds=(0.0, 1.0))
    assert 0.0 == one.low < one.value < one.high < 0.02


def test_shared_problems_vary_together():
    """Problems on which one arm is better under every seed: the interval knows that other problems would differ."""
    rng = np.random.default_rng(2)
    covered = {True: 0, False: 0}
    for world in range(WORLDS):
        lean = rng.normal(0.0, 0.5, size=(1, 20))  # mean 0 over all problems there are
        difference = lean + rng.normal(0.0, 0.05, size=(10, 20))
        for shared in covered:
            one = estimate(difference, shared=shared, resamples=300, seed=world)
            covered[shared] += one.low <= 0.0 <= one.high
    assert covered[True] / WORLDS > 0.9
    assert covered[False] / WORLDS < 0.5


def test_a_better_arm_wins():
    rng = np.random.default_rng(3)
    won = 0
    for world in range(50):
        one = estimate(
            students(rng, 10, 100, skill=1.0) - students(rng, 10, 100), shared=False, resamples=400, seed=world
        )
        won += one.p < 0.05 and one.low > 0
    assert won >= 48


def test_an_arm_that_learns_nothing_stays_where_it_was():
    before = students(np.random.default_rng(4), 10, 50)
    one = estimate(before.copy() - before, shared=False, resamples=300)
    assert (one.value, one.low, one.high, one.p) == (0.0, 0.0, 0.0, 1.0)
    same = estimate(np.ones((10, 4)), shared=False, resamples=300)
    assert same.p == 1 / 301  # never certain


def test_an_interval_stays_where_values_can_be_and_one_seed_has_none():
    outcomes = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    one = estimate(outcomes, shared=False, resamples=300, bounds=(0.0, 1.0))
    assert 0.0 <= one.low <= one.value <= one.high <= 1.0
    alone = estimate(outcomes[:1], shared=False, resamples=300)
    assert (alone.value, alone.low, alone.high, alone.p, alone.sd) == (1.0, None, None, None, None)


def test_a_ratio_lies_in_its_interval():
    many = np.random.default_rng(6)
    before, after = students(many, 4000, 100, skill=-1.0), students(many, 4000, 100, skill=0.5)
    truth = (after - before).mean() / (1.0 - before).mean()
    rng = np.random.default_rng(5)
    covered = 0
    for world in range(200):
        before, after = students(rng, 8, 60, skill=-1.0), students(rng, 8, 60, skill=0.5)
        one = ratio(after - before, 1.0 - before, shared=False, resamples=300, seed=world)
        covered += one.low <= truth <= one.high
    assert 0.9 <= covered / 200 <= 0.99
    assert ratio(after, before * 0, shared=False, resamples=300) is None


def test_holm_and_the_area_under_a_curve():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert area([0, 10, 20], [0.0, 1.0, 1.0], 20) == pytest.approx(0.75)
    assert area([0, 10, 20], [0.0, 1.0, 1.0], 5) == pytest.approx(0.25)
    assert area([0, 10, 20], [0.0, 1.0, 1.0], 21) is None
    assert area([0], [0.5], 10) is None
