"""Top-k supports: true divergences of coarsened distributions, exact at k = V, at rest where student is teacher."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from oracle import divergence

from opd_core.objective.candidates import top_candidates
from opd_core.objective.divergences import reverse_kl
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import force, plan_loss
from opd_core.objective.plan import build_plan
from opd_core.objective.support import TokenSet, choose_tokens, coarsen
from opd_core.spec import MethodSpec
from opd_core.spec.variables.objective import Divergence
from opd_core.spec.variables.support import TopKKind

KINDS = get_args(TopKKind)
REMAINDERS = ["tail", "renormalised", "generalised"]
DIVERGENCES = [name for name in get_args(Divergence) if name != "total_variation"]  # that one has a kink at equality


def method(divergence_name="reverse_kl", kind="full", **support) -> MethodSpec:
    return MethodSpec.model_validate(
        {"objective": {"route": "direct", "divergence": divergence_name}, "support": {"kind": kind, **support}}
    )


def by_definition(kind, pi, p, *, k, mass=0.95):
    """The support of one state, as a sorted list of ids."""
    ours, theirs = pi.topk(k).indices.tolist(), p.topk(k).indices.tolist()
    if kind == "adaptive":
        held, chosen = 0.0, []
        for v in theirs:
            if held >= mass:
                break
            chosen.append(v)
            held += float(pi[v])
        return sorted(chosen)
    return sorted(
        {
            "teacher_top_k": set(theirs),
            "student_top_k": set(ours),
            "union": set(ours) | set(theirs),
            "intersection": set(ours) & set(theirs),
        }[kind]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("remainder", ["tail", "renormalised"])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_loss_equals_the_definition_on_the_coarsened_distributions(kind, remainder, name, batch, feedback):
    student, teacher, _, mask = batch
    loss = plan_loss(build_plan(method(name, kind, k=3, remainder=remainder), feedback()), student[mask])
    for row, (s, t) in enumerate(zip(student[mask], teacher[mask], strict=True)):
        pi, p = s.softmax(-1), t.softmax(-1)
        chosen = by_definition(kind, pi, p, k=3)
        coarse = [torch.cat([q[chosen], 1 - q[chosen].sum()[None]]) for q in (pi, p)]
        if remainder == "renormalised":
            coarse = [q[chosen] / q[chosen].sum() for q in (pi, p)]
            if len(chosen) < 2:  # log 1 - log 1, or nothing at all
                assert loss[row].item() == pytest.approx(0.0, abs=1e-15)
                continue
        assert loss[row].item() == pytest.approx(divergence(name, *coarse).item(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("remainder", REMAINDERS)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_at_the_whole_vocabulary_every_support_is_full(kind, remainder, name, batch, feedback):
    student, _, _, mask = batch
    whole = build_plan(method(name), feedback())
    coarse = build_plan(method(name, kind, k=7, mass=1 - 1e-12, remainder=remainder), feedback())
    torch.testing.assert_close(plan_loss(coarse, student[mask]), plan_loss(whole, student[mask]), atol=1e-12, rtol=0)
    torch.testing.assert_close(force(coarse, student[mask]), force(whole, student[mask]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("remainder", REMAINDERS)
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


def test_an_empty_intersection_says_nothing():
    student = torch.tensor([[[5.0, 4.0, -4.0, -5.0]]], dtype=torch.float64)
    teacher = student.flip(-1)
    found = Feedback.from_logits(student, teacher, torch.zeros(1, 1).long(), torch.ones(1, 1))
    for remainder in REMAINDERS:
        plan = build_plan(method("reverse_kl", "intersection", k=2, remainder=remainder), found)
        assert float(plan_loss(plan, student[0])) == 0.0
        assert float(force(plan, student[0]).abs().max()) == 0.0
        assert plan.statistics["support_size"] == 0.0
    assert (
        build_plan(method(kind="intersection", k=2, remainder="renormalised"), found).statistics["support_blind"] == 1.0
    )


def test_the_adaptive_support_is_as_long_as_the_student_needs(batch, feedback):
    short, long = (
        build_plan(method(kind="adaptive", k=7, mass=mass), feedback()).statistics["support_size"]
        for mass in (0.3, 0.99)
    )
    assert short < long
    assert build_plan(method(kind="adaptive", k=2, mass=0.99), feedback()).statistics["support_size"] <= 2


def test_generalised_reverse_kl_has_the_gradient_of_the_stop_gradient_form(batch, feedback):
    """sum over S of sg(log pi/p) pi: lifted where the teacher gives more, at rest where it gives the same."""
    student, teacher, _, mask = batch
    plan = build_plan(method("reverse_kl", "teacher_top_k", k=3, remainder="generalised"), feedback())
    for row, (s, t) in enumerate(zip(student[mask], teacher[mask], strict=True)):
        live = s.clone().requires_grad_()
        pi, p = live.softmax(-1), t.softmax(-1)
        ids = p.topk(3).indices
        value = ((pi / p).log().detach() * pi)[ids].sum()
        (grad,) = torch.autograd.grad(value, live)
        torch.testing.assert_close(force(plan, student[mask])[row], -grad, atol=1e-12, rtol=0)


def test_the_raw_forward_kl_is_the_plain_sum_and_not_at_rest(batch, feedback):
    student, teacher, tokens, mask = batch
    plan = build_plan(method("forward_kl", "teacher_top_k", k=3, remainder="raw"), feedback())
    p, pi = teacher[mask].softmax(-1), student[mask].softmax(-1)
    ids = p.topk(3).indices
    plain = (p * (p / pi).log()).gather(1, ids).sum(1)
    torch.testing.assert_close(plan_loss(plan, student[mask]), plain)
    same = Feedback.from_logits(student, student, tokens, mask)
    at_rest = build_plan(method("forward_kl", "teacher_top_k", k=3, remainder="raw"), same)
    assert float(force(at_rest, student[mask]).abs().max()) > 0.01


@pytest.mark.parametrize(("kind", "words"), [("reverse_kl", r"log\(pi/p\) \+ 1"), ("jsd", "not a divergence")])
def test_other_raw_forms_are_refused_with_the_reason(kind, words):
    with pytest.raises(ValueError, match=words):
        method(kind, "teacher_top_k", k=3, remainder="raw")


@pytest.mark.parametrize("support", [{"kind": "full"}, {"kind": "teacher_top_k", "k": 3}])
def test_excluded_special_tokens_take_no_part(support, batch):
    """As if the vocabulary had never had them; where one was sampled, there is no force at all."""
    student, teacher, tokens, mask = batch
    tokens = torch.where(mask & (tokens == 2), 1, tokens)
    tokens[0, 0] = 2
    context = FeedbackContext(special_ids=(2, 5))
    spec = method("jsd", **{**support, "special_tokens": "exclude"})
    pushed = force(
        build_plan(spec, Feedback.from_logits(student, teacher, tokens, mask, context=context)), student[mask]
    )
    rest = [0, 1, 3, 4, 6]
    lean = Feedback.from_logits(student[..., rest], teacher[..., rest], tokens.clamp(max=4), mask)
    expected = force(build_plan(method("jsd", **support), lean), student[mask][:, rest])
    speaking = ~torch.isin(tokens[mask], torch.tensor([2, 5]))
    torch.testing.assert_close(pushed[:, rest], expected * speaking[:, None], atol=1e-12, rtol=0)
    assert float(pushed[:, [2, 5]].abs().max()) < 1e-15
    assert not speaking.all()


def test_special_tokens_are_silent_in_the_log_ratio_route_and_time_passes(batch):
    student, teacher, tokens, mask = batch
    spec = {"objective": {"route": "log_ratio"}, "credit": {"estimator": "discounted", "gamma": 0.5}}
    context = FeedbackContext(special_ids=(int(tokens[0, 1]),))
    found = Feedback.from_logits(student, teacher, tokens, mask, context=context)
    kept, silent = (
        build_plan(MethodSpec.model_validate({**spec, "support": {"kind": "sampled", "special_tokens": word}}), found)
        for word in ("keep", "exclude")
    )
    special = tokens[mask] == tokens[0, 1]
    torch.testing.assert_close(silent.coefficients, torch.where(special, 0.0, kept.coefficients))
    assert silent.normalizer == kept.normalizer
    assert float(silent.view.gate_by_name["special_tokens"].sum()) == float((~special).sum())


def test_a_renormalised_single_token_is_refused():
    with pytest.raises(ValueError, match="k >= 2"):
        method(kind="teacher_top_k", k=1, remainder="renormalised")


def test_a_small_bucket_is_as_exact_as_a_large_one():
    """In float32: what the tokens leave to 1 would be rounding alone."""
    logits = torch.tensor([[12.0, 11.0, -1.0, -3.0, 2.0]], dtype=torch.float64)
    tokens = TokenSet(torch.tensor([[0, 1, 1]]), torch.tensor([[True, True, False]]))  # one twice, as in a union
    exact, found = (
        coarsen(logits.to(dtype).log_softmax(1), tokens, "tail")[0, -1] for dtype in (torch.float64, torch.float32)
    )
    by_hand = logits[0, 2:].logsumexp(0) - logits[0].logsumexp(0)
    assert float(exact) == pytest.approx(float(by_hand), rel=1e-12)
    assert float(found) == pytest.approx(float(exact), rel=1e-6)


def test_without_any_other_token_the_bucket_is_the_smallest_and_has_no_force():
    logits = torch.tensor([[1.0, 0.0]], requires_grad=True)
    tokens = TokenSet(torch.tensor([[0, 1]]), torch.tensor([[True, True]]))
    bucket = coarsen(logits.log_softmax(1), tokens, "tail")[0, -1]
    bucket.backward()
    assert float(bucket.detach()) == pytest.approx(math.log(torch.finfo(torch.float32).eps))
    assert logits.grad.tolist() == [[0.0, 0.0]]
