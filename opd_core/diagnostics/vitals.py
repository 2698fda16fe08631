"""Numbers for the health checks (``opd_core.runs.health``), from what a step has at hand anyway, by metric.

A number that a step cannot give (no verified answers, no critic, too few tokens) is left out.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from opd_core.objective.draft import correlation
from opd_core.objective.feedback import Feedback
from opd_core.objective.plan import UpdatePlan

_LOUDEST = 0.01  # share of tokens
_LIST = 16  # favourites whose overlap is measured
_TAILS = (8, 16, 32)
_LONG_ENOUGH = 256  # characters: shorter texts compress badly whatever they say
_TAIL = 1024


@torch.no_grad()
def of_batch(
    feedback: Feedback, plan: UpdatePlan, *, correct: Sequence[bool | None], texts: Sequence[str], same_policy: bool
) -> dict[str, float]:
    """From a whole batch of B sequences; ``correct`` and ``texts`` have B entries.

    ``same_policy``: the rollouts were sampled from the very distribution that is trained, so that the two
    log-probabilities of a token should agree.
    """
    mask = feedback.mask
    r = feedback.log_ratio[mask]
    found = _of_log_ratios(r)
    coefficients = (plan.coefficients * plan.weights).abs()
    if bool(coefficients.any()):
        found["signal_p99"] = quantiles(coefficients, 0.99)[0]
    if (informed := _auroc(_means(feedback.log_ratio, mask), correct)) is not None:
        found["informativeness"] = informed
    if plan.view.values is not None or bool(plan.view.advantages.any()):
        found["credit_correlation"] = correlation(plan.view.returns[mask], r)
    if same_policy and feedback.context.behaviour_logp is not None:
        found["engine_gap"] = float((feedback.context.behaviour_logp[mask] - feedback.student_logp[mask]).abs().mean())
    if (repetition := _repetition(texts)) is not None:
        found["repetition"] = repetition
    return found


def of_favourites(top: Mapping[str, Tensor]) -> dict[str, float]:
    """From both models' favourites [M, K] at recorded states, likeliest first: the columns of the token records."""
    student, teacher = top["student_top_ids"], top["teacher_top_ids"]
    if not len(student):
        return {}
    k = min(_LIST, student.shape[1])
    shared = (teacher[:, :k, None] == student[:, None, :k]).any(2)
    found = {
        "overlap": float(shared.float().mean()),
        "overlap_mass": float((top["teacher_top_logp"][:, :k].exp() * shared).sum(1).mean()),
    }
    for k in _TAILS:
        if k <= student.shape[1]:
            found[f"tail_student_{k}"] = _tail(top["student_top_logp"], k)
            found[f"tail_teacher_{k}"] = _tail(top["teacher_top_logp"], k)
    return found


def quantiles(values: Tensor, *levels: float) -> list[float]:
    """What ``torch.quantile`` says of the numbers in a tensor (at least one), which refuses more than 2^24 of them."""
    ordered = values.flatten().float().sort().values
    if bool(ordered[-1].isnan()):  # they are sorted to the end
        return [math.nan] * len(levels)
    found = []
    for level in levels:
        place = level * (len(ordered) - 1)
        below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
        found.append(float(below.lerp(above, place % 1.0)))
    return found


def _of_log_ratios(r: Tensor) -> dict[str, float]:
    sizes = r.abs().sort(descending=True).values
    loudest = sizes[: max(1, round(_LOUDEST * len(sizes)))]
    low, high = quantiles(r, 0.01, 0.99)
    return {
        "log_ratio_p01": low,
        "log_ratio_p99": high,
        "log_ratio_loudest": float(loudest.sum() / sizes.sum().clamp(min=1e-12)),
    }


def _tail(logp: Tensor, k: int) -> float:
    """Mean mass outside of the k favourites."""
    return float((1.0 - logp[:, :k].exp().sum(1)).clamp(min=0.0).mean())


def _means(values: Tensor, mask: Tensor) -> list[float]:
    """Mean of each sequence."""
    sums, counts = (values * mask).sum(1), mask.sum(1).clamp(min=1)
    means: list[float] = (sums / counts).tolist()
    return means


def _auroc(scores: Sequence[float], correct: Sequence[bool | None]) -> float | None:
    """Chance that a right sequence scores higher than a wrong one; None without both kinds."""
    right = torch.tensor([s for s, c in zip(scores, correct, strict=True) if c is True])
    wrong = torch.tensor([s for s, c in zip(scores, correct, strict=True) if c is False])
    if not len(right) or not len(wrong):
        return None
    difference = right[:, None] - wrong[None, :]
    return float(((difference > 0).float() + 0.5 * (difference == 0).float()).mean())


def _repetition(texts: Sequence[str]) -> float | None:
    """How far the ends of long texts compress beyond a half, 0 to 1 (arXiv 2604.08527 watches the same)."""
    tails = [text[-_TAIL:].encode(errors="replace") for text in texts if len(text) >= _LONG_ENOUGH]
    if not tails:
        return None
    shares = [max(0.0, 1.0 - 2.0 * len(zlib.compress(tail)) / len(tail)) for tail in tails]
    return sum(shares) / len(shares)
