"""What each estimator estimates, and what differentiating it would do: by exact enumeration."""

from __future__ import annotations

import pytest
import torch

from opd_core.objective.estimators import k1, k2, k3


@pytest.fixture
def state(generator):
    student = torch.randn(12, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(12, generator=generator, dtype=torch.float64).log_softmax(-1)
    return student, teacher


def expected_gradient(estimator, student, teacher):
    """E_{y ~ pi} of the gradient of estimator(r(y)), with the sampling itself held fixed."""
    logp = student.log_softmax(-1)
    (grad,) = torch.autograd.grad((logp.detach().exp() * estimator(teacher - logp)).sum(), student)
    return grad


def kl_gradients(student, teacher):
    logp = student.log_softmax(-1)
    reverse = (logp.exp() * (logp - teacher)).sum()
    forward = (teacher.exp() * (teacher - logp)).sum()
    return torch.autograd.grad(reverse, student, retain_graph=True)[0], torch.autograd.grad(forward, student)[0]


def test_k1_and_k3_are_unbiased(state):
    student, teacher = state
    logp = student.detach().log_softmax(-1)
    reverse = (logp.exp() * (logp - teacher)).sum()
    for estimator in (k1, k3):
        assert (logp.exp() * estimator(teacher - logp)).sum().item() == pytest.approx(reverse.item())
    assert float(k3(teacher - logp).min()) >= 0


def test_direct_gradients_are_none_reverse_and_forward(state):
    student, teacher = state
    reverse, forward = kl_gradients(student, teacher)
    assert float(expected_gradient(k1, student, teacher).abs().max()) < 1e-14
    torch.testing.assert_close(expected_gradient(k2, student, teacher), reverse)
    torch.testing.assert_close(expected_gradient(k3, student, teacher), forward)


def test_samples_from_the_teacher_turn_k1_into_minus_forward_kl(state):
    student, teacher = state
    logp = student.detach().log_softmax(-1)
    forward = (teacher.exp() * (teacher - logp)).sum()
    assert (teacher.exp() * k1(teacher - logp)).sum().item() == pytest.approx(-forward.item())
