"""Independent float64 reference: plain probabilities and autograd, one state at a time, no shared code."""

from __future__ import annotations

import torch
from torch import Tensor


def kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(a || b) of two probability vectors."""
    return sum((a[v] * torch.log(a[v] / b[v]) for v in range(len(a)) if float(a[v].detach()) > 0), start=a.sum() * 0)


def divergence(kind: str, student: Tensor, teacher: Tensor, beta: float = 0.5) -> Tensor:
    """A divergence of two probability vectors by its textbook definition."""
    if kind == "forward_kl":
        return kl(teacher, student)
    if kind == "reverse_kl":
        return kl(student, teacher)
    if kind == "skew_reverse_kl":
        return kl(student, beta * student + (1 - beta) * teacher)
    if kind == "alpha":
        return (1 - (teacher**beta * student ** (1 - beta)).sum()) / (beta * (1 - beta))
    if kind == "total_variation":
        return torch.where(teacher > student, teacher - student, student - teacher).sum() / 2
    mixture = beta * teacher + (1 - beta) * student
    if kind == "skew_forward_kl":
        return kl(teacher, mixture)
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


def gradient(
    kind: str, student_logits: Tensor, teacher_logits: Tensor, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """d divergence / d student_logits at one state."""
    logits = student_logits.detach().clone().requires_grad_()
    value = divergence(kind, (logits / temperature).softmax(-1), (teacher_logits / temperature).softmax(-1), beta)
    (result,) = torch.autograd.grad(value, logits)
    return result
