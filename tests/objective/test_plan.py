"""From method and feedback to force: what every recipe really does to the logits."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from oracle import gradient

from opd_core.objective.aggregate import aggregation_weights
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import force, plan_loss
from opd_core.objective.plan import DivergenceTerm, build_plan
from opd_core.objective.targets import DenseTarget
from opd_core.recipes import load, names
from opd_core.spec import MethodSpec
from opd_core.spec.variables.aggregation import Aggregation
from opd_core.spec.variables.objective import Divergence

LOG_RATIO = MethodSpec.model_validate({"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}})


def direct(divergence: str, **fields) -> MethodSpec:
    return MethodSpec.model_validate({"objective": {"route": "direct", "divergence": divergence, **fields}})


@pytest.mark.parametrize("kind", get_args(Divergence))
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_direct_force_is_minus_the_divergence_gradient(kind, temperature, batch, feedback):
    student, teacher, _, mask = batch
    plan = build_plan(direct(kind, beta=0.3, alpha=0.2, order=0.6, temperature=temperature), feedback(temperature))
    weight = {"jsd": 0.3, "alpha": 0.6}.get(kind, 0.2)
    pushed = force(plan, student[mask])
    for row, (s, t) in enumerate(zip(student[mask], teacher[mask], strict=True)):
        torch.testing.assert_close(pushed[row], -gradient(kind, s, t, weight, temperature), atol=1e-12, rtol=0)


def test_log_ratio_force_is_r_times_score(batch, feedback):
    student, teacher, tokens, mask = batch
    pushed = force(build_plan(LOG_RATIO, feedback()), student[mask])
    pi = student[mask].softmax(-1)
    y = tokens[mask]
    r = (teacher.log_softmax(-1) - student.log_softmax(-1))[mask].gather(1, y[:, None])
    torch.testing.assert_close(pushed, r * (torch.nn.functional.one_hot(y, 7) - pi))


def test_log_ratio_route_is_the_reverse_kl_in_expectation(generator):
    """Enumerate every sampled token at one state: E_y[r score] = -grad KL(student || teacher)."""
    student = torch.randn(7, generator=generator, dtype=torch.float64)
    teacher = torch.randn(7, generator=generator, dtype=torch.float64)
    states = [x.expand(7, 1, 7) for x in (student, teacher)]
    found = Feedback.from_logits(*states, torch.arange(7)[:, None], torch.ones(7, 1))
    pushed = force(build_plan(LOG_RATIO, found), states[0][:, 0])
    expected = (student.softmax(-1)[:, None] * pushed).sum(0)
    torch.testing.assert_close(expected, -gradient("reverse_kl", student, teacher), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", names())
def test_every_recipe_rests_at_its_own_optimum(name, batch, deliver, generator):
    """The distillation's force vanishes where teacher equals student; recipes that end elsewhere say why, and move."""
    recipe = load(name)
    _, _, tokens, mask = batch
    # Wider than any recipe's k: over the whole vocabulary even the raw forms are at rest.
    student = torch.randn(3, 5, 90, generator=generator, dtype=torch.float64)
    nearly = student + 1e-6 * torch.randn(student.shape, generator=generator, dtype=torch.float64)
    found = deliver(student, nearly, tokens, mask)
    pushed = force(build_plan(recipe.method.distillation(), found), student[mask])
    if recipe.method.distillation().shift is None:
        assert float(pushed.abs().max()) < 1e-5
    else:
        assert recipe.fixed_point == "shifted"
        assert float(pushed.abs().max()) > 1e-4
    assert recipe.fixed_point == ("teacher" if recipe.method.shift is None else "shifted")


@pytest.mark.parametrize("name", names())
def test_every_recipe_moves_elsewhere_and_forces_sum_to_zero(name, batch, deliver):
    student, _, _, mask = batch
    pushed = force(build_plan(load(name).method, deliver(*batch)), student[mask])
    assert float(pushed.abs().max()) > 1e-2
    torch.testing.assert_close(pushed.sum(-1), torch.zeros(len(pushed), dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", names())
def test_padding_and_its_content_change_nothing(name, batch, deliver, generator):
    student, teacher, tokens, mask = batch
    method = load(name).method
    values = torch.randn(tokens.shape, generator=generator, dtype=torch.float64)
    bootstrap = torch.randn(len(tokens), generator=generator, dtype=torch.float64)
    plan = build_plan(method, deliver(student, teacher, tokens, mask, values=values, bootstrap=bootstrap))
    wide = [
        torch.cat([torch.full_like(x[:, :2], 3), x, torch.full_like(x, 5)], 1)
        for x in (student, teacher, tokens, values)
    ]
    wide_mask = torch.cat([torch.zeros(3, 2), mask, torch.zeros(3, 5)], 1).bool()
    padded = build_plan(method, deliver(*wide[:3], wide_mask, values=wide[3], bootstrap=bootstrap))
    assert torch.equal(padded.tokens, plan.tokens)
    assert padded.normalizer == plan.normalizer
    torch.testing.assert_close(force(padded, student[mask]), force(plan, student[mask]))
    view = padded.view
    for field in (view.advantages, view.returns, view.gates, *view.gate_by_name.values()):
        assert float(field[~wide_mask].abs().sum()) == 0
    if plan.critic is not None:
        torch.testing.assert_close(padded.critic.values, plan.critic.values)


@pytest.mark.parametrize("name", names())
def test_what_lies_off_the_mask_changes_nothing(name, batch, deliver):
    student, teacher, tokens, mask = batch
    method = load(name).method
    other = [torch.where(mask[..., None], x, 9.0 * torch.ones_like(x)) for x in (student, teacher)]
    plan = build_plan(method, deliver(*batch))
    changed = build_plan(method, deliver(*other, torch.where(mask, tokens, 6), mask))
    torch.testing.assert_close(force(changed, student[mask]), force(plan, student[mask]), atol=0, rtol=0)


def test_a_route_moves_mass_from_the_token_to_its_destinations(batch, feedback):
    """The plan's law f = a - (sum a) pi, with a hand-made route that moves |r| from y to two other tokens."""
    student, _, _, mask = batch
    base = build_plan(LOG_RATIO, feedback())
    n = len(base)
    ids = torch.stack([(base.tokens + 1) % 7, (base.tokens + 2) % 7], 1)
    weights = torch.tensor([[0.75, 0.25]], dtype=torch.float64).expand(n, 2)
    magnitude = torch.linspace(0.5, 2.0, n, dtype=torch.float64)
    from dataclasses import replace

    plan = replace(
        base,
        components={"transfer": -magnitude},
        route_ids=ids,
        route_weights=magnitude[:, None] * weights,
    )
    rho = torch.zeros(n, 7, dtype=torch.float64).scatter_(1, ids, weights)
    expected = magnitude[:, None] * (rho - torch.nn.functional.one_hot(base.tokens, 7))
    torch.testing.assert_close(force(plan, student[mask]), expected, atol=1e-12, rtol=0)


def test_divergence_terms_add_up_with_their_weights(batch, feedback):
    student, teacher, _, mask = batch
    plan = build_plan(direct("forward_kl"), feedback())
    from dataclasses import replace

    weight = torch.rand(len(plan), dtype=torch.float64)
    both = replace(
        plan,
        divergences=(
            replace(plan.divergences[0], weight=weight),
            DivergenceTerm("reverse_kl", 2 * weight, DenseTarget(teacher[mask])),
        ),
    )
    expected = torch.stack(
        [
            -w * (gradient("forward_kl", s, t) + 2 * gradient("reverse_kl", s, t))
            for w, s, t in zip(weight, student[mask], teacher[mask], strict=True)
        ]
    )
    torch.testing.assert_close(force(both, student[mask]), expected, atol=1e-12, rtol=0)


def test_aggregation_weights(batch, feedback):
    token = build_plan(MethodSpec(), feedback())
    assert token.normalizer == 9
    assert torch.equal(token.weights, torch.ones(9, dtype=torch.float64))
    sequence = build_plan(MethodSpec.model_validate({"aggregation": {"per": "sequence"}}), feedback())
    assert sequence.normalizer == 3
    torch.testing.assert_close(sequence.weights.sum(), torch.tensor(3.0, dtype=torch.float64))
    assert sequence.weights.tolist() == pytest.approx([0.2] * 5 + [1 / 3] * 3 + [1.0])
    constant = build_plan(MethodSpec.model_validate({"aggregation": {"per": "constant", "constant": 8}}), feedback())
    assert constant.normalizer == 24
    assert torch.equal(constant.weights, torch.ones(9, dtype=torch.float64))


@pytest.mark.parametrize(("per", "expected"), [("token", [1.0] * 6), ("sequence", [0.5] * 2 + [0.5] * 2 + [1.0, 0.0])])
def test_gate_mass_shares_the_whole_update_among_open_gates(per, expected):
    aggregation = Aggregation(per=per, denominator="gate_mass")
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0]]).bool()
    gates = torch.tensor([[1.0, 1.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    weights, normalizer = aggregation_weights(aggregation, mask, gates)
    assert weights.tolist() == pytest.approx(expected)
    assert normalizer == (5.0 if per == "token" else 4.0)


def test_rows_from_data_are_a_loss_of_their_own():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()
    golden = torch.tensor([False, True, True])
    gates = mask.double()
    weights, normalizer = aggregation_weights(Aggregation(), mask, gates, golden)
    assert (weights / normalizer).tolist() == pytest.approx([1 / 3] * 6)
    weights, normalizer = aggregation_weights(Aggregation(by_origin=False), mask, gates, golden)
    assert (weights / normalizer).tolist() == pytest.approx([1 / 6] * 6)
    weights, normalizer = aggregation_weights(Aggregation(per="sequence"), mask, gates, golden)
    assert (weights / normalizer).tolist() == pytest.approx([1 / 3] * 3 + [1 / 2] + [1 / 4] * 2)


def test_importance_corrects_tempered_sampling_in_expectation(generator):
    """y ~ mu (temperature 0.7): the weighted expectation over mu equals the reverse-KL gradient at pi."""
    student = torch.randn(7, generator=generator, dtype=torch.float64)
    teacher = torch.randn(7, generator=generator, dtype=torch.float64)
    mu = (student / 0.7).log_softmax(-1)
    states = [x.expand(7, 1, 7) for x in (student, teacher)]
    found = Feedback.from_logits(
        *states,
        torch.arange(7)[:, None],
        torch.ones(7, 1),
        context=FeedbackContext(behaviour_logp=mu[:, None]),
    )
    method = LOG_RATIO.model_copy(update={"importance": LOG_RATIO.importance.model_copy(update={"cap": 1e9})})
    expected = (mu.exp()[:, None] * force(build_plan(method, found), states[0][:, 0])).sum(0)
    torch.testing.assert_close(expected, -gradient("reverse_kl", student, teacher), atol=1e-12, rtol=0)
    plain = method.model_copy(update={"importance": LOG_RATIO.importance.model_copy(update={"kind": "none"})})
    biased = (mu.exp()[:, None] * force(build_plan(plain, found), states[0][:, 0])).sum(0)
    assert float((biased - expected).norm() / expected.norm()) > 0.05


def test_importance_is_truncated_and_the_share_reported(batch, feedback):
    _student, _, _, mask = batch
    low = torch.full(mask.shape, -20.0, dtype=torch.float64)
    plan = build_plan(LOG_RATIO, feedback(behaviour_logp=low))
    assert plan.statistics["importance_truncated"] == 1.0
    torch.testing.assert_close(plan.coefficients, 5.0 * feedback().log_ratio[mask])


def test_the_signal_is_detached(batch, feedback):
    plan = build_plan(LOG_RATIO, feedback())
    assert not plan.coefficients.requires_grad
    student = batch[0].clone().requires_grad_()
    live = Feedback.from_logits(student, *batch[1:])
    assert not live.log_ratio.requires_grad


def test_temperature_mismatch_is_an_error(feedback):
    with pytest.raises(ValueError, match="temperature"):
        build_plan(direct("forward_kl", temperature=2.0), feedback(1.0))


def test_jsd_ends_are_the_kls(batch, feedback):
    student, _, _, mask = batch
    for beta, kind in ((0.0, "forward_kl"), (1.0, "reverse_kl")):
        ends, plain = (build_plan(direct(k, beta=beta), feedback()) for k in ("jsd", kind))
        assert torch.equal(force(ends, student[mask]), force(plain, student[mask]))


def test_loss_of_an_empty_plan_is_empty(batch):
    student, teacher, tokens, mask = batch
    nothing = torch.zeros_like(mask)
    plan = build_plan(MethodSpec(), Feedback.from_logits(student, teacher, tokens, nothing))
    assert plan_loss(plan, student[nothing]).shape == (0,)
    assert plan.normalizer == 1.0
