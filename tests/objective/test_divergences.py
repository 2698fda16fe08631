"""Divergences against their definitions, in value and gradient, and the identities that tie them together."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import divergence, gradient
from torch.autograd import gradcheck

from opd_core.objective import divergences as d

KINDS = {
    "forward_kl": d.forward_kl,
    "reverse_kl": d.reverse_kl,
    "jsd": lambda s, t: d.jensen_shannon(s, t, 0.3),
    "skew_forward_kl": lambda s, t: d.skew_forward_kl(s, t, 0.3),
    "skew_reverse_kl": lambda s, t: d.skew_reverse_kl(s, t, 0.3),
    "alpha": lambda s, t: d.alpha_divergence(s, t, 0.3),
    "total_variation": d.total_variation,
}


@pytest.fixture
def logits(generator):
    return (
        torch.randn(6, 9, generator=generator, dtype=torch.float64) * 2,
        torch.randn(6, 9, generator=generator, dtype=torch.float64) * 2,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_equal_the_definition(kind, logits):
    student, teacher = logits
    live = student.clone().requires_grad_()
    value = KINDS[kind](live.log_softmax(-1), teacher.log_softmax(-1))
    (grad,) = torch.autograd.grad(value.sum(), live)
    for row in range(len(student)):
        expected = divergence(kind, student[row].softmax(-1), teacher[row].softmax(-1), beta=0.3)
        assert value[row].item() == pytest.approx(expected.item(), abs=1e-12)
        torch.testing.assert_close(grad[row], gradient(kind, student[row], teacher[row], beta=0.3), atol=1e-12, rtol=0)


def test_kl_logit_gradients_in_closed_form(logits):
    student, teacher = logits
    pi, p = student.softmax(-1), teacher.softmax(-1)
    live = student.clone().requires_grad_()
    (forward,) = torch.autograd.grad(d.forward_kl(live.log_softmax(-1), teacher.log_softmax(-1)).sum(), live)
    torch.testing.assert_close(forward, pi - p)
    value = d.reverse_kl(live.log_softmax(-1), teacher.log_softmax(-1))
    (reverse,) = torch.autograd.grad(value.sum(), live)
    torch.testing.assert_close(reverse, pi * ((pi / p).log() - value.detach()[:, None]))


def test_jensen_shannon_tends_to_the_kls_and_is_bounded(logits):
    s, t = (x.log_softmax(-1) for x in logits)
    torch.testing.assert_close(d.jensen_shannon(s, t, 1e-7) / 1e-7, d.forward_kl(s, t), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(d.jensen_shannon(s, t, 1 - 1e-7) / 1e-7, d.reverse_kl(s, t), rtol=1e-4, atol=1e-6)
    far = torch.tensor([[0.0, -200.0]], dtype=torch.float64).log_softmax(-1)
    other = torch.tensor([[-200.0, 0.0]], dtype=torch.float64).log_softmax(-1)
    assert d.jensen_shannon(far, other, 0.5).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.5])
def test_jensen_shannon_refuses_its_ends(beta, logits):
    with pytest.raises(ValueError, match="beta"):
        d.jensen_shannon(*logits, beta)


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_skew_kls_against_the_definition_and_their_bound(alpha, logits):
    s, t = (x.log_softmax(-1) for x in logits)
    pi, p = s.exp(), t.exp()
    mixture = (alpha * p + (1 - alpha) * pi).log()
    torch.testing.assert_close(d.skew_forward_kl(s, t, alpha), (p * (t - mixture)).sum(-1))
    mixture = (alpha * pi + (1 - alpha) * p).log()
    torch.testing.assert_close(d.skew_reverse_kl(s, t, alpha), (pi * (s - mixture)).sum(-1))
    assert float((s - mixture).max()) <= -math.log(alpha)


@pytest.mark.parametrize("function", KINDS.values())
def test_zero_value_and_gradient_where_student_is_teacher(function, logits):
    student, _ = logits
    live = student.clone().requires_grad_()
    value = function(live.log_softmax(-1), student.log_softmax(-1))
    (grad,) = torch.autograd.grad(value.sum(), live)
    assert float(value.detach().abs().max()) < 1e-14
    assert float(grad.abs().max()) < 1e-14


@pytest.mark.parametrize("function", KINDS.values())
def test_tokens_masked_in_both_models_change_nothing(function, logits):
    student, teacher = logits
    infinity = torch.full((6, 2), -math.inf, dtype=torch.float64)
    live = torch.cat([student, infinity], -1).requires_grad_()
    masked = function(live.log_softmax(-1), torch.cat([teacher, infinity], -1).log_softmax(-1))
    (grad,) = torch.autograd.grad(masked.sum(), live)
    torch.testing.assert_close(masked, function(student.log_softmax(-1), teacher.log_softmax(-1)))
    assert torch.isfinite(grad).all()
    assert float(grad[:, -2:].abs().max()) == 0.0


def test_a_token_only_the_student_can_write_makes_the_reverse_kl_infinite():
    student = torch.tensor([[0.5, 0.5]]).log()
    teacher = torch.tensor([[1.0, 0.0]]).log()
    assert d.reverse_kl(student, teacher).item() == math.inf
    assert d.forward_kl(student, teacher).item() == pytest.approx(math.log(2))


def test_bfloat16_is_lifted_before_differences_are_taken(generator):
    student = torch.randn(4, 50, generator=generator).bfloat16()
    teacher = (student.float() + 0.01 * torch.randn(4, 50, generator=generator)).bfloat16()
    s, t = student.float().log_softmax(-1).bfloat16(), teacher.float().log_softmax(-1).bfloat16()
    value = d.reverse_kl(s, t)
    assert value.dtype == torch.float32
    torch.testing.assert_close(
        value.double(), (s.double().exp() * (s.double() - t.double())).sum(-1), atol=1e-6, rtol=1e-4
    )


def test_the_alpha_family_tends_to_the_kls(logits):
    s, t = (x.log_softmax(-1) for x in logits)
    torch.testing.assert_close(d.alpha_divergence(s, t, 1e-6), d.reverse_kl(s, t), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(d.alpha_divergence(s, t, 1 - 1e-6), d.forward_kl(s, t), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="order"):
        d.alpha_divergence(s, t, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_by_name_it_is_the_same(kind, logits):
    s, t = (x.log_softmax(-1) for x in logits)
    assert torch.equal(d.divergence(kind, s, t, 0.3), KINDS[kind](s, t))
    generalised = d.divergence(kind, s, t, 0.3, generalised=True)  # masses that sum to 1 make no difference
    torch.testing.assert_close(generalised, KINDS[kind](s, t))


@pytest.mark.parametrize("kind", KINDS)
def test_generalised_divergences_of_masses_rest_at_equality_and_are_never_negative(kind, logits, generator):
    student, teacher = (x.log_softmax(-1)[:, :4] for x in logits)
    live = student.clone().requires_grad_()
    same = d.divergence(kind, live, student, 0.3, generalised=True)
    (grad,) = torch.autograd.grad(same.sum(), live)
    assert float(same.detach().abs().max()) < 1e-14
    assert float(grad.abs().max()) < 1e-14
    nearly = student + 0.05 * torch.randn(student.shape, generator=generator, dtype=torch.float64)
    for other in (nearly, teacher):
        assert float(d.divergence(kind, student, other, 0.3, generalised=True).min()) > 0


def test_gradcheck(logits):
    student, teacher = logits
    t = teacher.log_softmax(-1)
    for kind, function in KINDS.items():
        if kind == "total_variation":  # not differentiable where the masses cross
            continue
        assert gradcheck(lambda z, f=function: f(z.log_softmax(-1), t), (student.requires_grad_(),))
