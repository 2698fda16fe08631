"""Single-sample estimators of KL(student || teacher) at y ~ student, from r = log p_teacher(y) - log pi_student(y).

All three have expectation KL (k2 only to second order), but very different gradients when differentiated directly:
k1 has none in expectation, k2 has that of the reverse KL, k3 that of the FORWARD KL. They are reported as values;
no objective of this package differentiates k1.

Source: J. Schulman, Approximating KL Divergence (2020); gradients by enumeration in tests/objective.
"""

from __future__ import annotations

from torch import Tensor


def k1(log_ratio: Tensor) -> Tensor:
    """-r = log pi - log p: unbiased, high variance, either sign."""
    return -log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """r^2 / 2: biased, low variance, never negative."""
    return 0.5 * log_ratio.square()


def k3(log_ratio: Tensor) -> Tensor:
    """u - 1 - log u with u = p / pi = exp(r): unbiased, never negative."""
    return log_ratio.expm1() - log_ratio
