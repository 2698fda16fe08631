"""evaluation.json: right or wrong for each held-out problem, before and after, and for the teacher.

Accuracies alone cannot be compared problem by problem; two runs of one seed are examined on the same problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opd_core.training.evaluation import Evaluation, Sampled

FILE = "evaluation.json"


def first(before: Evaluation, teacher: Mapping[int, bool] | None, sampled: Sampled | None) -> dict[str, Any]:
    """What is known before the first step. Lists have one entry per problem, in one order."""
    return {
        "problems": before.problems,
        "teacher": None if teacher is None else [teacher[problem] for problem in before.problems],
        "before": _one(before, sampled),
        "after": None,
    }


def last(known: dict[str, Any], after: Evaluation, sampled: Sampled | None) -> dict[str, Any]:
    """The same with the end of the run. Raises ValueError when it was examined on other problems."""
    if known["problems"] != after.problems:
        raise ValueError(f"{FILE} is about other problems than the evaluation at the end of the run")
    return {**known, "after": _one(after, sampled)}


def _one(found: Evaluation, sampled: Sampled | None) -> dict[str, Any]:
    return {
        "correct": found.correct,
        "length": found.rollouts.lengths.tolist(),
        "truncated": found.rollouts.truncated.tolist(),
        "samples_solved": None if sampled is None else sampled.solved,
    }
