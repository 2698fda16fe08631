"""Divergences between student and teacher at one state, over the last (vocabulary) axis.

All take log-probabilities [..., V] in natural logarithms and return [...] in nats, in the input's dtype but at
least float32. A token to which the weighting distribution gives no mass contributes exactly zero, in value and in
gradient (0 log 0 = 0), so -inf logits of masked tokens are safe. Where the weighting distribution has mass and the
other has none, the KLs are infinite, as they should be.

``divergence`` picks one by name; with ``generalised`` its arguments are masses over part of the vocabulary, which need
not sum to 1 (support.py).

Sources: GKD, arXiv 2306.13649 (forward, reverse, Jensen-Shannon); DistiLLM, arXiv 2402.03898 (skew KLs); Ma et al.,
arXiv 2606.30406, eq. 5 (generalised KL on a support).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from opd_core.spec.variables.objective import Divergence


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


def alpha_divergence(student_logp: Tensor, teacher_logp: Tensor, order: float) -> Tensor:
    """(1 - sum_v p_v^order pi_v^(1 - order)) / (order (1 - order)).

    Amari's family: the reverse KL as order -> 0, the forward KL as order -> 1; at the ends themselves ValueError.
    """
    _open_interval("order", order)
    student_logp, teacher_logp = _upcast(student_logp), _upcast(teacher_logp)
    return (1.0 - _geometric_overlap(student_logp, teacher_logp, order)) / (order * (1.0 - order))


def total_variation(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """sum_v |p_v - pi_v| / 2, in [0, 1]."""
    return 0.5 * (_upcast(teacher_logp).exp() - _upcast(student_logp).exp()).abs().sum(-1)


def divergence(
    kind: Divergence, student_logp: Tensor, teacher_logp: Tensor, parameter: float = 0.5, *, generalised: bool = False
) -> Tensor:
    """The divergence of that name; ``parameter`` is beta of the jsd, alpha of the skew KLs, order of the alpha family.

    ``generalised``: log-masses [..., K] of part of the vocabulary. Each KL becomes sum p log(p/q) - p + q, which is
    never negative and at rest at p = q, with the gradient of the stop-gradient form.
    """
    if generalised:
        return _generalised(kind, _upcast(student_logp), _upcast(teacher_logp), parameter)
    match kind:
        case "forward_kl":
            return forward_kl(student_logp, teacher_logp)
        case "reverse_kl":
            return reverse_kl(student_logp, teacher_logp)
        case "jsd":
            return jensen_shannon(student_logp, teacher_logp, parameter)
        case "skew_forward_kl":
            return skew_forward_kl(student_logp, teacher_logp, parameter)
        case "skew_reverse_kl":
            return skew_reverse_kl(student_logp, teacher_logp, parameter)
        case "alpha":
            return alpha_divergence(student_logp, teacher_logp, parameter)
        case "total_variation":
            return total_variation(student_logp, teacher_logp)


def _generalised(kind: Divergence, student: Tensor, teacher: Tensor, parameter: float) -> Tensor:
    def kl(weighting: Tensor, other: Tensor) -> Tensor:
        return _kl(weighting, other) - weighting.exp().sum(-1) + other.exp().sum(-1)

    match kind:
        case "forward_kl":
            return kl(teacher, student)
        case "reverse_kl":
            return kl(student, teacher)
        case "jsd":
            mixture = _log_mixture(teacher, student, parameter)
            return parameter * kl(teacher, mixture) + (1.0 - parameter) * kl(student, mixture)
        case "skew_forward_kl":
            return kl(teacher, _log_mixture(teacher, student, parameter))
        case "skew_reverse_kl":
            return kl(student, _log_mixture(student, teacher, parameter))
        case "alpha":
            linear = parameter * teacher.exp().sum(-1) + (1.0 - parameter) * student.exp().sum(-1)
            return (linear - _geometric_overlap(student, teacher, parameter)) / (parameter * (1.0 - parameter))
        case "total_variation":
            return total_variation(student, teacher)


def _geometric_overlap(student: Tensor, teacher: Tensor, order: float) -> Tensor:
    """sum_v p_v^order pi_v^(1 - order); a token that either model rules out adds nothing, in value and gradient."""
    possible = (student > -math.inf) & (teacher > -math.inf)
    exponent = order * torch.where(possible, teacher, 0.0) + (1.0 - order) * torch.where(possible, student, 0.0)
    return torch.where(possible, exponent.exp(), 0.0).sum(-1)


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
