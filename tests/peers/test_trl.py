"""Parity with TRL 1.16: where it publishes a loss of the same point in the space of methods, ours is equal to it, in
value and in its gradient with respect to the student's logits, reductions included.

Ours goes the whole way: feedback, plan, loss. TRL's functions are called without a trainer, which would need a model
and a data set; where one is a method, it gets a small object with the attributes that it reads.
"""

from __future__ import annotations

import os
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import head_loss, plan_loss
from opd_core.objective.plan import build_plan
from opd_core.objective.targets import HiddenTarget
from opd_core.recipes import load
from opd_core.spec import MethodSpec

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl", reason="pip install 'opd[peers]'")

from trl.experimental.gkd import GKDTrainer
from trl.experimental.iw_opd import IWOPDTrainer
from trl.experimental.sdpo import SDPOTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss

B, T, V, H = 3, 6, 11, 4
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]]).bool()
BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)
# TRL chooses the support by beta: the teacher's favourites, the union of both, the student's.
SUPPORTS = {0.0: "teacher_top_k", 0.1: "union", 0.5: "union", 0.9: "union", 1.0: "student_top_k"}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    student, teacher = (2.0 * torch.randn(B, T, V, generator=generator, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(V, (B, T), generator=generator)
    labels = torch.where(MASK, tokens, -100)
    return student.requires_grad_(), teacher, tokens, labels


def ours(method: dict, student, teacher, tokens, *, temperature: float = 1.0, behaviour_logp=None):
    context = FeedbackContext(temperature=temperature, behaviour_logp=behaviour_logp)
    feedback = Feedback.from_logits(student, teacher, tokens, MASK, context=context)
    plan = build_plan(MethodSpec.model_validate(method), feedback)
    return (plan.weights * plan_loss(plan, student[MASK])).sum() / plan.normalizer


def assert_equal(student, own, other, tolerance=1e-9):
    assert other.abs() > 1e-3  # two zeros would agree as well
    torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (own, other)]
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


def direct(beta: float, **changes) -> dict:
    return {"objective": {"route": "direct", "divergence": "jsd", "beta": beta}, **changes}


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("beta", BETAS)
def test_generalised_jsd_of_the_gkd_trainer(batch, beta, temperature):
    student, teacher, tokens, labels = batch
    method = direct(beta)
    method["objective"]["temperature"] = temperature
    own = ours(method, student, teacher, tokens, temperature=temperature)
    other = GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta, temperature=temperature)
    assert_equal(student, own, other)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("beta", BETAS)
def test_chunked_head_loss_of_the_stable_distillation_trainer(beta, temperature):
    """Hidden states and head weights instead of logits: both sides never hold all logits, and give both gradients."""
    generator = torch.Generator().manual_seed(5)
    hidden, teacher_hidden = (torch.randn(B, T, H, generator=generator, requires_grad=True) for _ in range(2))
    weight, teacher_weight = (torch.randn(V, H, generator=generator, requires_grad=True) for _ in range(2))
    tokens = torch.randint(V, (B, T), generator=generator)

    class Head:
        def rows(self):
            return weight, None

        def transform(self, raw_logits):
            return raw_logits

    packed = hidden[MASK]
    feedback = Feedback.from_rows(
        HiddenTarget(packed.detach(), lambda rows: rows @ weight.T),
        HiddenTarget(teacher_hidden[MASK].detach(), lambda rows: rows @ teacher_weight.T),
        tokens,
        MASK,
        context=FeedbackContext(temperature=temperature),
    )
    method = direct(beta)
    method["objective"]["temperature"] = temperature
    plan = build_plan(MethodSpec.model_validate(method), feedback)
    own, _ = head_loss(plan, packed, Head(), chunk_budget=3 * V)
    other, _, _ = _chunked_divergence_loss(
        hidden, teacher_hidden.detach(), weight, teacher_weight.detach(), MASK, beta, temperature=temperature
    )
    assert other > 1e-3
    torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)
    for one, two in zip(*(torch.autograd.grad(loss, (hidden, weight)) for loss in (own, other)), strict=True):
        assert two.abs().max() > 1e-3
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("add_tail", "remainder"), [(True, "tail"), (False, "renormalised")])
@pytest.mark.parametrize("beta", BETAS)
def test_top_k_losses_of_the_iw_opd_trainer(batch, beta, add_tail, remainder):
    student, teacher, tokens, labels = batch
    method = direct(beta, support={"kind": SUPPORTS[beta], "k": 4, "remainder": remainder})
    own = ours(method, student, teacher, tokens)
    other = IWOPDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta, top_k=4, add_tail=add_tail)
    assert_equal(student, own, other)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_prefix_weights_of_the_iw_opd_trainer(batch, gamma):
    student, teacher, tokens, labels = batch
    method = load("iw-opd").method.model_dump()
    method["gates"] = [{"kind": "prefix_weight", "gamma": gamma}]
    own = ours(method, student, teacher, tokens)
    trainer = SimpleNamespace(
        temperature=1.0,
        iw_opd_gamma=gamma,
        iw_opd_epsilon=1e-8,
        model=SimpleNamespace(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    teacher_logp = teacher.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    other = IWOPDTrainer._compute_iw_opd_loss(trainer, student, tokens, labels, teacher_logp)
    assert_equal(student, own, other, tolerance=1e-7)


def sdpo_loss(student, teacher, tokens, *, old_logp=None, **settings):
    """The SDPO trainer's own reduction: the mean over sequences of each sequence's token mean."""
    arguments = {
        "distillation_topk": None,
        "distillation_alpha": 1.0,
        "distillation_add_tail": True,
        "distillation_is_clip": None,
    }
    trainer = SimpleNamespace(
        args=SimpleNamespace(**{**arguments, **settings}),
        accelerator=SimpleNamespace(gather=lambda value: value),
        _log_self_distillation_metric=lambda mode, value: None,
    )
    logits = SimpleNamespace(
        student_logits=student, teacher_logits=teacher, completion_ids=tokens, loss_mask=MASK.to(student.dtype)
    )
    return SDPOTrainer._compute_self_distillation_loss(
        trainer, SimpleNamespace(training=True), {"old_per_token_logps": old_logp}, logits
    )


@pytest.mark.parametrize(("add_tail", "remainder"), [(True, "tail"), (False, "renormalised")])
@pytest.mark.parametrize("alpha", BETAS)
def test_top_k_self_distillation_loss_of_the_sdpo_trainer(batch, alpha, add_tail, remainder):
    student, teacher, tokens, _ = batch
    support = {"kind": "student_top_k", "k": 4, "remainder": remainder}
    own = ours(direct(alpha, support=support, aggregation={"per": "sequence"}), student, teacher, tokens)
    other = sdpo_loss(
        student,
        teacher,
        tokens,
        distillation_mode="topk_logits",
        distillation_topk=4,
        distillation_alpha=alpha,
        distillation_add_tail=add_tail,
    )
    assert_equal(student, own, other)


@pytest.mark.parametrize("alpha", BETAS)
def test_full_self_distillation_loss_of_the_sdpo_trainer(batch, alpha):
    student, teacher, tokens, _ = batch
    own = ours(direct(alpha, aggregation={"per": "sequence"}), student, teacher, tokens)
    other = sdpo_loss(student, teacher, tokens, distillation_mode="full_logits", distillation_alpha=alpha)
    assert_equal(student, own, other)


@pytest.mark.parametrize("clip", [None, 1.2])
def test_sampled_token_loss_of_the_sdpo_trainer_and_its_importance_clip(batch, clip):
    student, teacher, tokens, _ = batch
    own_logp = student.detach().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    drift = torch.linspace(-0.5, 0.5, B * T, dtype=torch.float64).reshape(B, T)  # ratios on both sides of the clip
    old_logp = own_logp + drift
    method = {**load("tml-opd").method.model_dump(), "aggregation": {"per": "sequence"}}
    method["importance"] = {"kind": "none"} if clip is None else {"kind": "truncated", "cap": clip}
    own = ours(method, student, teacher, tokens, behaviour_logp=old_logp)
    other = sdpo_loss(
        student, teacher, tokens, old_logp=old_logp, distillation_mode="sampled_token", distillation_is_clip=clip
    )
    assert clip is None or ((own_logp - old_logp).exp() > clip)[MASK].any()
    assert_equal(student, own, other)
