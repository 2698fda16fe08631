"""Rollouts by another policy: each weight against its definition, and the gradient of the clipped surrogate."""

from __future__ import annotations

import pytest
import torch

from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.spec import MethodSpec


def method(**importance) -> MethodSpec:
    return MethodSpec.model_validate(
        {"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}, "importance": importance}
    )


@pytest.fixture
def stale(batch, feedback):
    """Ratios pi / mu from e^-2 to e^2, of both signs of the log-ratio."""
    mask = batch[3]
    moved = torch.zeros(mask.shape, dtype=torch.float64)
    moved[mask] = torch.tensor([-2.0, 2.0, -1.0, 1.0, 0.05, -0.3, 0.3, -0.05, 2.0], dtype=torch.float64)
    return feedback(behaviour_logp=feedback().student_logp - moved), moved[mask].exp()


def test_truncated(stale):
    found, ratio = stale
    plan = build_plan(method(kind="truncated", cap=2.0), found)
    torch.testing.assert_close(plan.coefficients, ratio.clamp(max=2.0) * found.log_ratio[found.mask])
    assert plan.statistics["importance_truncated"] == pytest.approx(float((ratio > 2.0).double().mean()))
    assert plan.statistics["importance_mean"] == pytest.approx(float(ratio.mean()))


def test_icepop_drops_what_lies_outside_its_window(stale):
    found, ratio = stale
    plan = build_plan(method(kind="icepop", low=0.5, cap=2.0), found)
    inside = (ratio >= 0.5) & (ratio <= 2.0)
    torch.testing.assert_close(plan.coefficients, torch.where(inside, ratio, 0.0) * found.log_ratio[found.mask])
    assert plan.statistics["importance_truncated"] == pytest.approx(float((~inside).double().mean()))


@pytest.mark.parametrize("nearly", [None, 0.1, -0.1])  # inside the window, whatever the sign of the advantage
def test_ppo_has_the_gradient_of_the_clipped_surrogate(nearly, batch, stale, feedback):
    """d/dz of -min(rho A, clip(rho, 1 - low, 1 + high) A), by autograd, with rho = pi(y) / mu(y)."""
    student, _, tokens, mask = batch
    found = stale[0] if nearly is None else feedback(behaviour_logp=feedback().student_logp - nearly)
    plan = build_plan(method(kind="ppo", low=0.2, high=0.3), found)
    live = student[mask].clone().requires_grad_()
    own = live.log_softmax(-1).gather(1, tokens[mask][:, None])[:, 0]
    rho = (own - found.context.behaviour_logp[mask]).exp()
    advantage = found.log_ratio[mask]
    surrogate = torch.minimum(rho * advantage, rho.clamp(0.8, 1.3) * advantage)
    (expected,) = torch.autograd.grad(surrogate.sum(), live)
    torch.testing.assert_close(force(plan, student[mask]), expected, atol=1e-12, rtol=0)
    silent = expected.abs().sum(1) == 0
    assert (0 < int(silent.sum()) < len(silent)) == (nearly is None)
    assert plan.statistics["importance_truncated"] == pytest.approx(float(silent.double().mean()))
    assert 0 < int((advantage < 0).sum()) < len(silent)


def test_none_takes_the_rollout_as_its_own(stale):
    found, _ = stale
    torch.testing.assert_close(build_plan(method(kind="none"), found).coefficients, found.log_ratio[found.mask])


def test_fresh_rollouts_have_weight_one(feedback):
    for kind in ("truncated", "ppo", "icepop", "none"):
        plan = build_plan(method(kind=kind), feedback())
        torch.testing.assert_close(plan.coefficients, feedback().log_ratio[feedback().mask])
        assert plan.statistics["importance_truncated"] == 0.0


def test_direct_losses_at_the_state_need_no_weight(batch, stale, feedback):
    student, _, _, mask = batch
    found, ratio = stale
    whole = MethodSpec()
    torch.testing.assert_close(
        force(build_plan(whole, found), student[mask]), force(build_plan(whole, feedback()), student[mask])
    )
    k2 = MethodSpec.model_validate(
        {
            "objective": {"route": "direct", "divergence": "reverse_kl"},
            "support": {"kind": "sampled", "estimator": "k2"},
        }
    )
    torch.testing.assert_close(
        build_plan(k2, found).coefficients, ratio.clamp(max=5.0) * build_plan(k2, feedback()).coefficients
    )
