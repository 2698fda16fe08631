"""Divergences between student and teacher at one state, over the last (vocabulary) axis.

All take log-probabilities [..., V] in natural logarithms and return [...] in nats, in the input's dtype but at
least float32. A token to which the weighting distribution gives no mass contributes exactly zero, in value and in
gradient (0 log 0 = 0), so -inf logits of masked tokens are safe. Where the weighting distribution has mass and the
other has none, the KLs are infinite, as they should be.

Sources: GKD, arXiv 2306.13649 (forward, reverse, Jensen-Shannon); DistiLLM, arXiv 2402.03898 (skew KLs).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def reverse_kl(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """KL(student || teacher) = sum_v pi_v (log pi_v - log p_v)."""
    student_logp, teacher_logp = _upcast(student_logp), _upcast(teacher_logp)
    return _kl(student_logp, teacher_logp)


def forward_kl(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """KL(teacher || student) = sum_v p_v (log p_v - log pi_v)."""
    student_logp, teacher_logp = _upcast(student_logp), _upcast(teacher_logp)
    return _kl(teacher_logp, student_logp)


def jensen_shannon(student_logp: Tensor, teacher_logp: Tensor, beta: float) -> Tensor:
    """beta KL(teacher || m) + (1 - beta) KL(student || m), with m = beta teacher + (1 - beta) student.

    Bounded by log 2. JSD/beta tends to the forward KL as beta -> 0, JSD/(1 - beta) to the reverse KL as beta -> 1;
    at the ends themselves it is identically zero, so they raise ValueError.
    """
    _open_interval("beta", beta)
    student_logp, teacher_logp = _upcast(student_logp), _upcast(teacher_logp)
    mixture = _log_mixture(teacher_logp, student_logp, beta)
    return beta * _kl(teacher_logp, mixture) + (1.0 - beta) * _kl(student_logp, mixture)


def skew_forward_kl(student_logp: Tensor, teacher_logp: Tensor, alpha: float) -> Tensor:
    """KL(teacher || alpha teacher + (1 - alpha) student); its integrand never exceeds -log alpha."""
    _open_interval("alpha", alpha)
    student_logp, teacher_logp = _upcast(student_logp), _upcast(teacher_logp)
    return _kl(teacher_logp, _log_mixture(teacher_logp, student_logp, alpha))


def skew_reverse_kl(student_logp: Tensor, teacher_logp: Tensor, alpha: float) -> Tensor:
    """KL(student || alpha student + (1 - alpha) teacher); its integrand never exceeds -log alpha."""
    _open_interval("alpha", alpha)
    student_logp, teacher_logp = _upcast(student_logp), _upcast(teacher_logp)
    return _kl(student_logp, _log_mixture(student_logp, teacher_logp, alpha))


def entropy(logp: Tensor) -> Tensor:
    """Shannon entropy in nats."""
    logp = _upcast(logp)
    probability = logp.exp()
    return -(probability * torch.where(probability > 0, logp, 0.0)).sum(-1)


def _upcast(tensor: Tensor) -> Tensor:
    # Differences of two bfloat16 log-probabilities are quantised to 0.06 at |logp| = 8.
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _kl(weighting: Tensor, other: Tensor) -> Tensor:
    probability = weighting.exp()
    # Masked before the product: where both are -inf the difference is NaN, and 0 * NaN would spread.
    difference = torch.where(probability > 0, weighting - other, 0.0)
    return (probability * difference).sum(-1)


def _log_mixture(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """log(weight * first + (1 - weight) * second), where both may be -inf."""
    both_zero = (first == -math.inf) & (second == -math.inf)
    a = torch.where(both_zero, 0.0, first) + math.log(weight)
    b = torch.where(both_zero, 0.0, second) + math.log1p(-weight)
    return torch.where(both_zero, -math.inf, torch.logaddexp(a, b))


def _open_interval(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1 (got {value}); the ends are the plain KLs")
