"""Returns per remaining token, and baselines taken from other sequences only."""

from __future__ import annotations

import pytest
import torch

from opd_core.objective.credit import sequence_baseline
from opd_core.objective.plan import build_plan
from opd_core.spec import MethodSpec


@pytest.fixture
def world(generator, deliver):
    student = torch.randn(5, 6, 9, generator=generator, dtype=torch.float64)
    teacher = torch.randn(5, 6, 9, generator=generator, dtype=torch.float64)
    tokens = torch.randint(9, (5, 6), generator=generator)
    mask = torch.tensor([[1] * 6, [1, 1, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6]).bool()
    return deliver(student, teacher, tokens, mask, group=torch.tensor([7, 7, 3, 7, 3]))


def method(**credit) -> MethodSpec:
    return MethodSpec.model_validate(
        {"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}, "credit": credit}
    )


def actions(world, b):
    return world.mask[b].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("kind", ["batch", "position", "group"])
def test_baselines_equal_their_definition(kind, world, generator):
    returns = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    found = sequence_baseline(kind, returns, world)
    groups = world.context.group.tolist()
    averaged = 0
    for b in range(5):
        for i, t in enumerate(actions(world, b)):
            others = []
            for c in range(5):
                if c == b or (kind == "group" and groups[c] != groups[b]):
                    continue
                at = actions(world, c)
                others += [float(returns[c, at[i]])] if kind == "position" and i < len(at) else []
                others += [float(returns[c, u]) for u in at] if kind != "position" else []
            averaged += bool(others)
            assert float(found[b, t]) == pytest.approx(sum(others) / len(others) if others else 0.0)
    assert averaged > 5
    assert float(found[~world.mask].abs().sum()) == 0


@pytest.mark.parametrize("kind", ["batch", "position", "group"])
def test_a_baseline_never_looks_at_its_own_sequence(kind, world, generator):
    returns = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    found = sequence_baseline(kind, returns, world)
    changed = returns.clone()
    changed[0] += 3.0
    other = sequence_baseline(kind, changed, world)
    torch.testing.assert_close(other[0], found[0])
    assert float((other - found)[1].abs().max()) > 0.1


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_normalised_returns_are_means_over_the_remaining_tokens(gamma, world):
    plan = build_plan(method(estimator="normalised", gamma=gamma), world)
    for b in range(5):
        at = actions(world, b)
        for i, t in enumerate(at):
            weights = [gamma**j for j in range(len(at) - i)]
            mean = sum(w * float(world.log_ratio[b, u]) for w, u in zip(weights, at[i:], strict=True)) / sum(weights)
            assert float(plan.view.advantages[b, t]) == pytest.approx(mean)


@pytest.mark.parametrize("estimator", ["immediate", "return_to_go", "discounted", "normalised"])
def test_the_expected_baseline_adds_k_to_any_return(estimator, world):
    plain, less = (build_plan(method(estimator=estimator, baseline=name), world) for name in ("none", "expected"))
    torch.testing.assert_close(less.view.advantages, plain.view.advantages + world.kl)
    torch.testing.assert_close(less.components["baseline"], world.kl[world.mask])


@pytest.mark.parametrize("baseline", ["batch", "position", "group"])
def test_the_plan_takes_the_baseline_off(baseline, world):
    plain, less = (build_plan(method(estimator="discounted", baseline=name), world) for name in ("none", baseline))
    taken = sequence_baseline(baseline, plain.view.advantages, world)
    torch.testing.assert_close(less.view.advantages, plain.view.advantages - taken)
    assert float(taken.abs().max()) > 0.1


def test_a_group_baseline_needs_groups(batch, feedback):
    with pytest.raises(ValueError, match=r"credit\.baseline 'group' needs the prompt of each rollout"):
        build_plan(method(baseline="group"), feedback())
