"""Targets other than the teacher itself, temperatures, regularizers, verifier rewards."""

from __future__ import annotations

import pytest
import torch
from oracle import gradient

from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.objective.targets import DenseTarget, GeometricTarget, UniformTarget
from opd_core.spec import MethodSpec

LOG_RATIO = {"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}}


def direct(divergence="reverse_kl", **objective) -> MethodSpec:
    return MethodSpec.model_validate({"objective": {"route": "direct", "divergence": divergence, **objective}})


TARGETS = {
    "trust_region": ({"kind": "trust_region", "weight": 0.3}, lambda p, pi, ref: 0.7 * p + 0.3 * pi),
    "trust_region_reference": (
        {"kind": "trust_region", "weight": 0.3, "anchor": "reference"},
        lambda p, pi, ref: 0.7 * p + 0.3 * ref,
    ),
    "veto": ({"kind": "veto", "beta": 0.4}, lambda p, pi, ref: p + 0.4 * pi),
    "extrapolated": ({"kind": "extrapolated", "scale": 1.5}, lambda p, pi, ref: 1.5 * p - 0.5 * ref),
}


@pytest.fixture
def reference(batch, generator):
    return torch.randn(batch[0].shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def found(batch, reference, feedback):
    def make(temperature=1.0, **context):
        return feedback(temperature, reference=DenseTarget(reference[batch[3]]), **context)

    return make


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_force_is_that_of_the_target_held_fixed(name, divergence, temperature, batch, reference, found):
    student, teacher, _, mask = batch
    spec, mix = TARGETS[name]
    plan = build_plan(direct(divergence, target=spec, temperature=temperature), found(temperature))
    pushed = force(plan, student[mask])
    for row, (s, t, ref) in enumerate(zip(student[mask], teacher[mask], reference[mask], strict=True)):
        p, pi, start = ((x / temperature).log_softmax(-1) for x in (t, s, ref))
        expected = -gradient(divergence, s / temperature, mix(p, pi, start)) / temperature
        torch.testing.assert_close(pushed[row], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", TARGETS)
def test_the_log_ratio_is_measured_against_the_target(name, batch, reference, found):
    student, teacher, tokens, mask = batch
    spec, mix = TARGETS[name]
    method = MethodSpec.model_validate({**LOG_RATIO, "objective": {"route": "log_ratio", "target": spec}})
    p, pi, start = (x[mask].log_softmax(-1) for x in (teacher, student, reference))
    expected = (mix(p, pi, start).log_softmax(-1) - pi).gather(1, tokens[mask][:, None])[:, 0]
    plan = build_plan(method, found())
    torch.testing.assert_close(plan.coefficients, expected)
    torch.testing.assert_close(plan.view.log_ratio[mask], (p - pi).gather(1, tokens[mask][:, None])[:, 0])


def test_optima_lie_where_the_method_says(batch, feedback):
    """Veto: teacher^(1 / (1 - beta)). Extrapolation: teacher^scale reference^(1 - scale). Trust region: the teacher."""
    student, _, tokens, mask = batch
    pi = student.log_softmax(-1)

    def at_rest(spec, teacher, reference=None):
        context = FeedbackContext(reference=None if reference is None else DenseTarget(reference[mask]))
        found = Feedback.from_logits(student, teacher, tokens, mask, context=context)
        return float(force(build_plan(direct(target=spec), found), student[mask]).abs().max())

    assert at_rest({"kind": "trust_region"}, pi) < 1e-12
    veto = {"kind": "veto", "beta": 0.4}
    assert at_rest(veto, 0.6 * pi) < 1e-12  # pi ~ teacher^(1 / 0.6)
    assert at_rest(veto, pi) > 1e-2
    reference = student.roll(1, -1)
    extrapolated = {"kind": "extrapolated", "scale": 1.25}
    assert at_rest(extrapolated, (pi - (-0.25) * reference) / 1.25, reference) < 1e-12
    assert at_rest(extrapolated, pi, reference) > 1e-2


def test_targets_that_need_a_reference_say_so(feedback):
    with pytest.raises(ValueError, match=r"objective\.target 'extrapolated' needs the student at the start"):
        build_plan(direct(target={"kind": "extrapolated"}), feedback())


def test_a_geometric_target_keeps_what_a_part_rules_out(generator):
    p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    q = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    for weights in ((1.5, -0.5), (0.5, 0.5), (-0.5, 1.5)):
        mixed = GeometricTarget(((weights[0], DenseTarget(p), 1.0), (weights[1], DenseTarget(q), 1.0))).log_probs(1.0)
        assert float(mixed.exp().sum()) == pytest.approx(1.0)
        assert float(mixed[0, 2]) == -torch.inf
    with pytest.raises(ValueError, match="temperatures already"):
        GeometricTarget(((1.0, DenseTarget(p), 1.0),)).log_probs(2.0)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_the_teacher_may_have_a_temperature_of_its_own(kind, batch, feedback):
    student, teacher, _, mask = batch
    method = direct(kind, temperature=1.5, teacher_temperature=0.5)
    pushed = force(build_plan(method, feedback(1.5, teacher_temperature=0.5)), student[mask])
    for row, (s, t) in enumerate(zip(student[mask], teacher[mask], strict=True)):
        expected = -gradient(kind, s / 1.5, t / 0.5) / 1.5
        torch.testing.assert_close(pushed[row], expected, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="temperatures"):
        build_plan(method, feedback(1.5))
    assert "temperature 0.5" in method.shift


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_reference_kl_pulls_to_the_start(direction, batch, reference, found):
    student, _, _, mask = batch
    rule = {"kind": "reference_kl", "weight": 0.3, "direction": direction}
    method = MethodSpec.model_validate({**LOG_RATIO, "regularizers": [rule]})
    added = force(build_plan(method, found()), student[mask]) - force(
        build_plan(MethodSpec.model_validate(LOG_RATIO), found()), student[mask]
    )
    for row, (s, ref) in enumerate(zip(student[mask], reference[mask], strict=True)):
        expected = -0.3 * gradient(f"{direction}_kl", s, ref)
        torch.testing.assert_close(added[row], expected, atol=1e-12, rtol=0)


def test_the_entropy_bonus_raises_entropy(batch, feedback):
    student, _, _, mask = batch
    method = MethodSpec.model_validate({"regularizers": [{"kind": "entropy", "weight": 0.2}]})
    added = force(build_plan(method, feedback()), student[mask]) - force(
        build_plan(MethodSpec(), feedback()), student[mask]
    )
    live = student[mask].clone().requires_grad_()
    entropy = -(live.log_softmax(-1).exp() * live.log_softmax(-1)).sum()
    torch.testing.assert_close(added, 0.2 * torch.autograd.grad(entropy, live)[0])


def test_the_uniform_target_has_as_many_rows_as_it_is_cut_to():
    uniform = UniformTarget(6, 4, torch.zeros(1, dtype=torch.float64))
    assert uniform[1:3].log_probs(1.0).exp().tolist() == [[0.25] * 4] * 2
    assert len(uniform[torch.tensor([0, 5])]) == 2
    assert len(uniform[torch.tensor([True, False, True, False, False, True])]) == 3


def test_the_trust_region_pulls_back_to_the_policy_that_wrote_the_rollout(batch, feedback):
    _, _, _, mask = batch
    rule = {"kind": "trust_region", "weight": 0.4}
    method = MethodSpec.model_validate({**LOG_RATIO, "importance": {"kind": "none"}, "regularizers": [rule]})
    moved = torch.linspace(-0.3, 0.3, mask.numel(), dtype=torch.float64).reshape(mask.shape)
    stale = feedback(behaviour_logp=feedback().student_logp - moved)
    plan = build_plan(method, stale)
    torch.testing.assert_close(plan.components["trust_region"], -0.4 * moved[mask])
    assert float(build_plan(method, feedback()).components["trust_region"].abs().max()) == 0.0


def test_golden_rows_are_imitated_and_not_distilled(batch, feedback):
    _, _, _, mask = batch
    from_data = torch.tensor([False, True, False])
    method = MethodSpec.model_validate({**LOG_RATIO, "regularizers": [{"kind": "golden", "weight": 0.25}]})
    plan = build_plan(method, feedback(from_data=from_data))
    golden = from_data[:, None].expand_as(mask)[mask]
    expected = torch.where(golden, 0.25, feedback().log_ratio[mask])
    torch.testing.assert_close(plan.coefficients, expected)
    share = plan.weights / plan.normalizer
    assert float(share[golden].sum()) == pytest.approx(1.0)
    assert float(share[~golden].sum()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="'golden' needs the origin of each row"):
        build_plan(method, feedback())


@pytest.fixture
def rewarded(generator):
    """Six rollouts of two prompts, and a third prompt whose samples are all wrong."""
    student, teacher = (torch.randn(8, 4, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(7, (8, 4), generator=generator)
    mask = torch.arange(4) < torch.tensor([4, 2, 3, 1, 4, 2, 3, 4])[:, None]
    reward = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    group = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    return Feedback.from_logits(student, teacher, tokens, mask, context=FeedbackContext(reward=reward, group=group))


def group_scores(rewarded, *, divide):
    reward, group = rewarded.context.reward, rewarded.context.group
    scores = []
    for b in range(len(reward)):
        peers = reward[group == group[b]]
        deviation = float(peers.var(correction=0).sqrt())
        centred = float(reward[b] - peers.mean())
        scores.append(centred / deviation if divide and deviation else 0.0 if divide else centred)
    return torch.tensor(scores, dtype=torch.float64)[:, None].expand_as(rewarded.log_ratio)[rewarded.mask]


@pytest.mark.parametrize("normalise", ["group_std", "group_mean"])
def test_rewards_add_to_the_advantage(normalise, rewarded):
    rule = {"kind": "reward", "weight": 0.5, "distillation_weight": 0.1, "normalise": normalise}
    plan = build_plan(MethodSpec.model_validate({**LOG_RATIO, "regularizers": [rule]}), rewarded)
    expected = 0.1 * rewarded.log_ratio[rewarded.mask] + 0.5 * group_scores(rewarded, divide=normalise == "group_std")
    torch.testing.assert_close(plan.coefficients, expected)


def test_rlsd_takes_the_direction_from_the_verifier_and_the_size_from_the_teacher(rewarded):
    rule = {"kind": "reward_sign", "epsilon": 0.3}
    plan = build_plan(MethodSpec.model_validate({**LOG_RATIO, "regularizers": [rule]}), rewarded)
    scores = group_scores(rewarded, divide=True)
    u = rewarded.log_ratio[rewarded.mask].exp()
    expected = torch.stack([a * (u[n] ** a.sign()).clamp(0.7, 1.3) for n, a in enumerate(scores)])
    torch.testing.assert_close(plan.coefficients, expected)
    assert (plan.coefficients.sign() == scores.sign()).all()


def test_regularizers_pass_no_gate(rewarded):
    rules = {"regularizers": [{"kind": "reward", "weight": 1.0}, {"kind": "entropy"}]}
    closed = MethodSpec.model_validate({**LOG_RATIO, "gates": [{"kind": "window", "start": 9}], **rules})
    plan = build_plan(closed, rewarded)
    torch.testing.assert_close(plan.coefficients, group_scores(rewarded, divide=True))
    assert float(plan.divergences[0].weight.min()) > 0


def test_rewards_are_missed_by_name(batch, feedback):
    method = MethodSpec.model_validate({**LOG_RATIO, "regularizers": [{"kind": "reward"}]})
    with pytest.raises(ValueError, match="regularizers: 'reward' needs the verifier's rewards"):
        build_plan(method, feedback())
    with pytest.raises(ValueError, match="needs the prompt of each rollout"):
        build_plan(method, feedback(reward=torch.ones(3)))
