"""Two runs at the same problem: which places are offered, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from api.schemas import RecordedPlace, SequenceSummary, SharedProblem

Pair = tuple[int, int, int, int]  # step and sequence of the left run, then of the right one

_MARKS = {True: "✓", False: "✗", None: "·"}


def name(found: SharedProblem) -> str:
    """The pair's name in the URL."""
    return f"{found.left.step}.{found.left.n}.{found.right.step}.{found.right.n}"


def label(found: SharedProblem) -> str:
    """One line for the list of pairs; no model text in it."""
    return f"problem {found.problem} · left {_place(found.left)} · right {_place(found.right)}"


def _place(place: RecordedPlace) -> str:
    return f"step {place.step} #{place.n} {_MARKS[place.correct]}"


def chosen(offered: list[SharedProblem], wanted: str | None) -> SharedProblem | None:
    """The wanted pair, else the nearest; None when nothing is shared."""
    return next((one for one in offered if name(one) == wanted), offered[0] if offered else None)


def reached(left: list[int], right: list[int]) -> list[int]:
    """Steps to look near: those that both runs recorded, or both runs' when they share none."""
    return sorted(set(left) & set(right)) or sorted({*left, *right})


def to_probe(jobs: Sequence[str], left: str | None, right: str | None) -> dict[str, str]:
    """The address of the Probe page for the two runs that are looked at: of the compared ones the first two, unless
    others of them are chosen.
    """
    first, second = (wanted if wanted in jobs else one for wanted, one in ((left, jobs[0]), (right, jobs[1])))
    return {"job": first} if first == second else {"job": first, "against": second}


def parting(left: Sequence[int], right: Sequence[int]) -> int | None:
    """The first place at which two sequences of token ids differ; None when they are the same."""
    differing = (i for i, pair in enumerate(zip_longest(left, right)) if pair[0] != pair[1])
    return next(differing, None)


def heading(side: str, run: str, summary: SequenceSummary, step: int) -> str:
    """What is shown on one side, in plain words."""
    verdict = {True: "right", False: "wrong", None: "unscored"}[summary.correct]
    cut = ", cut off" if summary.truncated else ""
    return f"{side}: {run} · step {step} · sequence {summary.n} · {verdict} · {summary.length} tokens{cut}"
