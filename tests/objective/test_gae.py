"""GAE-OPD: every critic form against its definition, token by token in plain Python."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_core.objective.critic import critic_loss
from opd_core.objective.feedback import Feedback, MissingFeedback
from opd_core.objective.gae import value_at_end
from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.objective.state import PlanState
from opd_core.recipes import load
from opd_core.spec import MethodSpec
from opd_core.spec.variables.credit import Credit

FORMS = ["value", "split", "differential", "per_token"]


def method(form="split", gamma=0.8, lam=0.5, end="return", **critic) -> MethodSpec:
    return MethodSpec.model_validate(
        {
            "objective": {"route": "log_ratio"},
            "support": {"kind": "sampled"},
            "credit": {
                "estimator": "gae",
                "gamma": gamma,
                "lam": lam,
                "critic": {"form": form, "end_of_sequence": end, **critic},
            },
        }
    )


@pytest.fixture
def world(generator):
    """Four rollouts, the first and the third cut by the length cap; a gap in the second (a tool's tokens)."""
    student = torch.randn(4, 7, 9, generator=generator, dtype=torch.float64)
    teacher = torch.randn(4, 7, 9, generator=generator, dtype=torch.float64)
    tokens = torch.randint(9, (4, 7), generator=generator)
    mask = torch.tensor([[1] * 7, [1, 1, 0, 0, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]).bool()
    return Feedback.from_logits(
        student,
        teacher,
        tokens,
        mask,
        values=torch.randn(4, 7, generator=generator, dtype=torch.float64),
        bootstrap=torch.tensor([-0.7, 0.0, -1.3, 0.0], dtype=torch.float64),
        truncated=torch.tensor([True, False, True, False]),
    )


def by_definition(world, form, gamma, lam, end, average):
    """(advantages, what the critic should have said or None where it is not asked), keyed by (row, position)."""
    advantages, targets, values = {}, {}, {}
    for b in range(4):
        at = world.mask[b].nonzero()[:, 0].tolist()
        n = len(at)
        r = [float(world.log_ratio[b, t]) for t in at]
        k = [float(world.kl[b, t]) for t in at]
        u = [float(world.values[b, t]) for t in at]
        left = [sum(gamma**j for j in range(n - i)) for i in range(n)]
        shift = average if form == "differential" else 0.0
        if form == "value":
            v = list(u)
        elif form == "per_token":
            v = [u[i] * left[i] for i in range(n)]
        else:
            v = [-(k[i] + shift) + gamma * u[i] for i in range(n)]
        ended = not bool(world.truncated[b])
        after = float(world.bootstrap[b])
        if end == "immediate" and ended:
            # so that delta of the last token is r + K
            after = (k[-1] + v[-1] + shift) / gamma
        following = [*v[1:], after]
        delta = [r[i] - shift + gamma * following[i] - v[i] for i in range(n)]
        gae = [sum((gamma * lam) ** (j - i) * delta[j] for j in range(i, n)) for i in range(n)]
        returns = [gae[i] + v[i] for i in range(n)]
        for i, t in enumerate(at):
            scale = left[i] if form == "per_token" else 1.0
            advantages[b, t] = gae[i] / scale
            values[b, t] = v[i]
            last = i == n - 1
            if form in ("value", "per_token"):
                targets[b, t] = returns[i] / scale
            elif last and ended and end == "immediate":
                targets[b, t] = None
            else:
                targets[b, t] = after if last else returns[i + 1]
    return advantages, targets, values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["return", "immediate"])
@pytest.mark.parametrize(("gamma", "lam"), [(0.8, 0.5), (1.0, 0.95), (0.9, 0.0), (1.0, 1.0)])
def test_every_form_equals_its_definition(form, end, gamma, lam, world):
    if form == "per_token":  # nothing is counted beyond what was written
        world = replace(world, bootstrap=torch.zeros(4, dtype=torch.float64))
    state = PlanState(running={"reward_mean": -0.4})
    plan = build_plan(method(form, gamma, lam, end), world, state)
    advantages, targets, values = by_definition(world, form, gamma, lam, end, -0.4)
    for n, (b, t) in enumerate(world.mask.nonzero().tolist()):
        assert float(plan.view.advantages[b, t]) == pytest.approx(advantages[b, t], abs=1e-12)
        assert float(plan.coefficients[n]) == pytest.approx(advantages[b, t], abs=1e-12)
        assert float(plan.view.values[b, t]) == pytest.approx(values[b, t], abs=1e-12)
        wanted = targets[b, t]
        assert float(plan.critic.weights[n]) == float(wanted is not None)
        if wanted is not None:
            assert float(plan.critic.values[n]) == pytest.approx(wanted, abs=1e-12)


def test_the_end_of_sequence_takes_immediate_credit_alone(world):
    for form in FORMS:
        plan = build_plan(method(form, 0.9, 0.7, "immediate"), world)
        for row, last in ((1, 5), (3, 0)):
            expected = world.log_ratio[row, last] + world.kl[row, last]
            torch.testing.assert_close(plan.view.advantages[row, last], expected)


def test_gamma_zero_is_exactly_vopd_whatever_the_critic_says(world):
    vopd = build_plan(load("vopd").method, world)
    for values in (world.values, 100 * world.values, None):
        plan = build_plan(method("split", gamma=0.0), replace(world, values=values, bootstrap=None))
        assert torch.equal(plan.coefficients, vopd.coefficients) or torch.allclose(
            plan.coefficients, vopd.coefficients, atol=1e-15
        )


def test_a_capped_rollout_is_not_an_ended_one(world):
    """The bootstrap counts where the cap cut, and nowhere else."""
    plan = build_plan(method("value"), world)
    other = build_plan(method("value"), replace(world, bootstrap=world.bootstrap + 5 * world.truncated))
    moved = (other.view.advantages - plan.view.advantages).abs().sum(1) > 0
    assert moved.tolist() == [True, False, True, False]


def test_until_the_critic_is_ready_credit_is_immediate_and_it_learns_all_the_same(world):
    for form in ("split", "differential"):
        early = build_plan(method(form), world, PlanState(critic_ready=False))
        torch.testing.assert_close(early.view.advantages, (world.log_ratio + world.kl) * world.mask)
        torch.testing.assert_close(early.critic.values, build_plan(method(form), world).critic.values)
    early = build_plan(method("value"), world, PlanState(critic_ready=False))
    torch.testing.assert_close(early.view.advantages, world.log_ratio)


def test_the_differential_critic_takes_the_average_from_the_run_and_from_the_batch_at_first(world):
    first = build_plan(method("differential"), world)
    average = float(world.log_ratio[world.mask].mean())
    same = build_plan(method("differential"), world, PlanState(running={"reward_mean": average}))
    torch.testing.assert_close(first.coefficients, same.coefficients)
    assert first.observed["reward_mean"] == pytest.approx(average)
    other = build_plan(method("differential"), world, PlanState(running={"reward_mean": average - 1}))
    assert float((first.coefficients - other.coefficients).abs().max()) > 0.1


def test_going_on_costs_nothing_on_average_only_for_the_differential_critic(generator):
    """Rewards of -1 everywhere and a settled critic: ending beats going on, unless the critic is differential."""
    student = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0]]).bool()
    world = Feedback.from_logits(
        student, student, torch.zeros(2, 6).long(), mask, truncated=torch.zeros(2).bool(), bootstrap=torch.zeros(2)
    )
    world = replace(world, log_ratio=-mask.double(), kl=mask.double())
    halfway = torch.full((2, 6), -2.0, dtype=torch.float64)  # "two more tokens to come", wherever one is
    ending = {}
    for form, values in (("split", halfway), ("differential", 0 * halfway)):
        plan = build_plan(method(form, gamma=1.0, lam=0.5), replace(world, values=values))
        ending[form] = float(plan.view.advantages[1, 1])
    assert ending["split"] == pytest.approx(2.0)  # the end escapes the two tokens that were expected
    assert ending["differential"] == pytest.approx(0.0)


def test_components_are_log_ratio_baseline_and_what_time_adds(world):
    plan = build_plan(method("split"), world)
    assert set(plan.components) == {"log_ratio", "baseline", "temporal"}
    torch.testing.assert_close(plan.components["log_ratio"], world.log_ratio[world.mask])
    torch.testing.assert_close(plan.components["baseline"], world.kl[world.mask])
    assert float(plan.components["temporal"].abs().max()) > 0.1
    assert float(build_plan(method("split", gamma=0.0), world).components["temporal"].abs().max()) < 1e-15


def test_quality_of_the_critic_is_reported(world):
    from opd_core.objective.credit import generalized_advantages, remaining

    exact, _ = generalized_advantages(
        world.log_ratio, torch.zeros_like(world.values), world.bootstrap, world.mask, 0.8, 1.0
    )
    perfect = build_plan(method("value"), replace(world, values=exact))
    assert perfect.statistics["critic_explained_variance"] == pytest.approx(1.0)
    constant = build_plan(method("value"), replace(world, values=torch.full_like(world.values, -3.0)))
    assert constant.statistics["critic_explained_variance"] == pytest.approx(0.0, abs=1e-12)
    assert constant.statistics["critic_length_correlation"] == 0.0
    assert constant.statistics["critic_value_mean"] == pytest.approx(-3.0)
    length = remaining(world.log_ratio, world.mask, 1.0)
    measuring = build_plan(method("value"), replace(world, values=-2.0 * length))
    assert measuring.statistics["critic_length_correlation"] == pytest.approx(-1.0)


def test_value_at_the_end_of_a_capped_rollout():
    kl, outputs = torch.tensor([0.5, 1.0]), torch.tensor([-2.0, -4.0])
    state = PlanState(running={"reward_mean": -0.75})

    def end(form):
        credit = Credit.model_validate({"estimator": "gae", "gamma": 0.5, "critic": {"form": form}})
        return value_at_end(credit, kl, outputs, state).tolist()

    assert end("value") == [-2.0, -4.0]
    assert end("split") == [-1.5, -3.0]
    assert end("differential") == [-0.75, -2.25]
    assert end("per_token") == [0.0, 0.0]


def test_missing_values_are_named(world):
    with pytest.raises(MissingFeedback, match=r"credit\.estimator 'gae' needs the critic's values"):
        build_plan(method("split"), replace(world, values=None))
    with pytest.raises(MissingFeedback, match="the value after the last token of truncated rollouts"):
        build_plan(method("split"), replace(world, bootstrap=None))
    ended = replace(world, bootstrap=None, truncated=torch.zeros(4).bool())
    assert build_plan(method("split"), ended).critic is not None


def test_critic_loss_is_a_weighted_huber_loss_in_deviations(world):
    plan = build_plan(
        method("split", end="immediate", huber=0.5, loss_weight=3.0), world, PlanState(running={"value_std": 2.0})
    )
    live = (
        torch.randn(len(plan), dtype=torch.float64, generator=torch.Generator().manual_seed(1)).mul(4).requires_grad_()
    )
    expected = 0.0
    for value, target, weight in zip(
        live.tolist(), plan.critic.values.tolist(), plan.critic.weights.tolist(), strict=True
    ):
        x = abs(value - target) / 2.0
        expected += weight * (0.5 * x * x if x < 0.5 else 0.5 * (x - 0.25))
    loss = critic_loss(plan.critic, live, plan.normalizer)
    assert float(loss.detach()) == pytest.approx(3.0 * expected / len(plan))
    (grad,) = torch.autograd.grad(loss, live)
    assert torch.equal(grad == 0, plan.critic.weights == 0)
    pieces = [critic_loss(plan[rows].critic, live[rows], plan.normalizer) for rows in (slice(0, 5), slice(5, None))]
    torch.testing.assert_close(sum(pieces), loss)


def test_a_tiny_spread_of_values_does_not_blow_up_the_critics_loss(world):
    plan = build_plan(method("split"), world, PlanState(running={"value_std": 1e-9}))
    assert plan.critic.scale == 0.05


def test_padding_changes_neither_advantages_nor_targets(world, generator):
    pad = torch.nn.functional.pad
    student = torch.randn(4, 7, 9, generator=generator, dtype=torch.float64)
    args = (student, student.roll(1, 0), world.tokens)
    more = {"bootstrap": world.bootstrap, "truncated": world.truncated}
    for form in FORMS:
        plain = build_plan(method(form), Feedback.from_logits(*args, world.mask, values=world.values, **more))
        wide = Feedback.from_logits(
            pad(student, (0, 0, 2, 3), value=3.0),
            pad(student.roll(1, 0), (0, 0, 2, 3), value=-1.0),
            pad(world.tokens, (2, 3), value=4),
            pad(world.mask, (2, 3)),
            values=pad(world.values, (2, 3), value=77.0),
            **more,
        )
        padded = build_plan(method(form), wide)
        torch.testing.assert_close(padded.coefficients, plain.coefficients)
        torch.testing.assert_close(padded.critic.values, plain.critic.values)
        assert padded.statistics == pytest.approx(dict(plain.statistics))


def test_running_statistics_average_what_steps_observed():
    state = PlanState().advanced({"x": 2.0})
    assert state.running == {"x": 2.0}
    state = state.advanced({"x": 4.0, "y": 1.0})
    assert state.running["x"] == pytest.approx(0.9 * 2.0 + 0.1 * 4.0)
    assert state.running["y"] == 1.0


def test_the_force_is_the_advantage_times_the_score(world, generator):
    student = torch.randn(12, 9, generator=generator, dtype=torch.float64)
    assert int(world.mask.sum()) > 12
    plan = build_plan(method("differential"), world)[:12]
    pi, y = student.softmax(-1), world.tokens[world.mask][:12]
    expected = plan.coefficients[:, None] * (torch.nn.functional.one_hot(y, 9) - pi)
    torch.testing.assert_close(force(plan, student), expected)
