"""Top-k supports: true divergences of coarsened distributions, exact at k = V, at rest where student is teacher."""

from __future__ import annotations

import pytest
import torch
from oracle import divergence

from opd_core.objective.divergences import reverse_kl
from opd_core.objective.feedback import Feedback
from opd_core.objective.loss import force, plan_loss
from opd_core.objective.plan import build_plan
from opd_core.objective.candidates import top_candidates
from opd_core.objective.support import choose_tokens, coarsen
from opd_core.spec import MethodSpec

KINDS = ["teacher_top_k", "student_top_k", "union"]
DIVERGENCES = ["forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl"]


def method(divergence_name="reverse_kl", kind="full", **support) -> MethodSpec:
    return MethodSpec.model_validate(
        {"objective": {"route": "direct", "divergence": divergence_name}, "support": {"kind": kind, **support}}
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("remainder", ["tail", "renormalised"])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_loss_equals_the_definition_on_the_coarsened_distributions(kind, remainder, name, batch, feedback):
    student, teacher, _, mask = batch
    loss = plan_loss(build_plan(method(name, kind, k=3, remainder=remainder), feedback()), student[mask])
    for row, (s, t) in enumerate(zip(student[mask], teacher[mask], strict=True)):
        pi, p = s.softmax(-1), t.softmax(-1)
        top = {"teacher_top_k": [p], "student_top_k": [pi], "union": [p, pi]}[kind]
        chosen = sorted({int(v) for q in top for v in q.topk(3).indices})
        coarse = [torch.cat([q[chosen], 1 - q[chosen].sum()[None]]) for q in (pi, p)]
        if remainder == "renormalised":
            coarse = [q[chosen] / q[chosen].sum() for q in (pi, p)]
        assert loss[row].item() == pytest.approx(divergence(name, *coarse).item(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("remainder", ["tail", "renormalised"])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_at_the_whole_vocabulary_every_support_is_full(kind, remainder, name, batch, feedback):
    student, _, _, mask = batch
    whole = build_plan(method(name), feedback())
    coarse = build_plan(method(name, kind, k=7, remainder=remainder), feedback())
    torch.testing.assert_close(plan_loss(coarse, student[mask]), plan_loss(whole, student[mask]), atol=1e-12, rtol=0)
    torch.testing.assert_close(force(coarse, student[mask]), force(whole, student[mask]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("remainder", ["tail", "renormalised"])
@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("k", [2, 3, 7])
def test_at_rest_where_student_is_teacher_and_never_negative(kind, remainder, name, k, batch, feedback, generator):
    student, _, tokens, mask = batch
    same = Feedback.from_logits(student, student, tokens, mask)
    plan = build_plan(method(name, kind, k=k, remainder=remainder), same)
    assert float(plan_loss(plan, student[mask]).abs().max()) < 1e-12
    assert float(force(plan, student[mask]).abs().max()) < 1e-12
    nearly = student + 0.05 * torch.randn(student.shape, generator=generator, dtype=torch.float64)
    for teacher in (nearly, batch[1]):
        plan = build_plan(
            method(name, kind, k=k, remainder=remainder), Feedback.from_logits(student, teacher, tokens, mask)
        )
        assert float(plan_loss(plan, student[mask]).min()) > -1e-12


def test_the_tail_sees_mass_that_leaves_the_support_and_renormalising_does_not():
    teacher = torch.tensor([[0.6, 0.3, 0.05, 0.05]], dtype=torch.float64).log()
    inside = torch.tensor([[0.6, 0.3, 0.05, 0.05]], dtype=torch.float64).log()
    leaving = torch.tensor([[0.2, 0.1, 0.35, 0.35]], dtype=torch.float64).log()
    tokens = choose_tokens("teacher_top_k", top_candidates(inside, teacher, 2))
    for remainder, seen in (("tail", True), ("renormalised", False)):
        value = reverse_kl(coarsen(leaving, tokens, remainder), coarsen(teacher, tokens, remainder))
        assert (float(value) > 0.1) == seen


def test_the_truncation_error_is_the_students_tail_times_the_kl_of_the_tails(batch):
    """KL = bucketed KL + pi(rest) KL(rest || rest)."""
    student, teacher, _, mask = batch
    s, t = student[mask].log_softmax(-1), teacher[mask].log_softmax(-1)
    tokens = choose_tokens("teacher_top_k", top_candidates(s, t, 3))
    outside = torch.ones_like(s, dtype=torch.bool).scatter_(1, tokens.ids, False)
    rest_s, rest_t = (x.masked_fill(~outside, -torch.inf) for x in (s, t))
    tail = rest_s.logsumexp(-1)
    error = tail.exp() * reverse_kl(rest_s.log_softmax(-1), rest_t.log_softmax(-1))
    bucketed = reverse_kl(coarsen(s, tokens, "tail"), coarsen(t, tokens, "tail"))
    torch.testing.assert_close(bucketed + error, reverse_kl(s, t))


def test_mass_left_out_is_reported(batch, feedback):
    _, teacher, _, mask = batch
    statistics = build_plan(method(kind="teacher_top_k", k=3), feedback()).statistics
    p = teacher[mask].softmax(-1)
    left = 1 - p.topk(3).values.sum(-1)
    assert statistics["support_teacher_tail"] == pytest.approx(float(left.mean()))
    assert statistics["support_student_tail"] > statistics["support_teacher_tail"]


def test_float32_rounding_of_a_full_support_gives_no_nan(generator):
    logits = 30 * torch.randn(64, 50, generator=generator)
    other = 30 * torch.randn(64, 50, generator=generator)
    tokens = torch.randint(50, (1, 64), generator=generator)
    found = Feedback.from_logits(logits[None], other[None], tokens, torch.ones(1, 64))
    for k in (40, 50):
        plan = build_plan(method("forward_kl", "teacher_top_k", k=k), found)
        assert torch.isfinite(force(plan, logits)).all()


def test_a_renormalised_single_token_is_refused():
    with pytest.raises(ValueError, match="k >= 2"):
        method(kind="teacher_top_k", k=1, remainder="renormalised")
