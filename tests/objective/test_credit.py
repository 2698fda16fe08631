from __future__ import annotations

import pytest
import torch

from opd_core.objective.credit import discounted_returns, generalized_advantages


def by_definition(rewards, mask, gamma):
    returns = torch.zeros_like(rewards)
    for row in range(rewards.shape[0]):
        actions = mask[row].nonzero()[:, 0].tolist()
        for clock, t in enumerate(actions):
            returns[row, t] = sum(gamma ** (k - clock) * rewards[row, u] for k, u in enumerate(actions) if k >= clock)
    return returns


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 1.0])
def test_returns_equal_their_definition_on_the_action_clock(gamma, generator):
    rewards = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 9, generator=generator) < 0.6
    torch.testing.assert_close(discounted_returns(rewards, mask, gamma), by_definition(rewards, mask, gamma))


def test_gamma_zero_is_immediate_credit(generator):
    rewards = torch.randn(2, 5, generator=generator)
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert torch.equal(discounted_returns(rewards, mask, 0.0), rewards)


@pytest.mark.parametrize("left", [0, 1, 7])
def test_padding_on_either_side_changes_no_return(left, generator):
    rewards = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 0]]).bool()
    noise = torch.randn(2, left, generator=generator, dtype=torch.float64)
    wide = torch.cat([noise, rewards, noise], 1)
    wide_mask = torch.cat([torch.zeros(2, left).bool(), mask, torch.zeros(2, left).bool()], 1)
    padded = discounted_returns(wide, wide_mask, 0.9)
    torch.testing.assert_close(padded[:, left : left + 4], discounted_returns(rewards, mask, 0.9))
    assert float(padded[~wide_mask].abs().sum()) == 0.0


def test_no_tokens_no_returns():
    assert discounted_returns(torch.zeros(2, 0), torch.zeros(2, 0).bool(), 0.5).shape == (2, 0)


def test_gamma_is_checked():
    with pytest.raises(ValueError, match="gamma"):
        discounted_returns(torch.zeros(1, 1), torch.ones(1, 1), 1.5)


@pytest.fixture
def rollout(generator):
    rewards = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    values = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    bootstrap = torch.tensor([0.0, 1.3, 0.0, -0.7], dtype=torch.float64)
    mask = torch.rand(4, 9, generator=generator) < 0.6
    return rewards, values, bootstrap, mask


def gae_by_definition(rewards, values, bootstrap, mask, gamma, lam):
    advantages = torch.zeros_like(rewards)
    for row in range(rewards.shape[0]):
        actions = mask[row].nonzero()[:, 0].tolist()
        after = [*(values[row, t] for t in actions[1:]), bootstrap[row]]
        delta = [rewards[row, t] + gamma * v - values[row, t] for t, v in zip(actions, after, strict=True)]
        for i, t in enumerate(actions):
            advantages[row, t] = sum((gamma * lam) ** (k - i) * delta[k] for k in range(i, len(actions)))
    return advantages


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_gae_equals_its_definition(gamma, lam, rollout):
    advantages, targets = generalized_advantages(*rollout, gamma, lam)
    mask = rollout[3]
    torch.testing.assert_close(advantages, gae_by_definition(*rollout, gamma, lam))
    torch.testing.assert_close(targets, (advantages + rollout[1]) * mask)


def test_gae_special_cases(rollout):
    rewards, values, bootstrap, mask = rollout
    zero, none = torch.zeros_like(values), torch.zeros_like(bootstrap)
    monte_carlo, _ = generalized_advantages(rewards, zero, none, mask, 0.9, 1.0)
    torch.testing.assert_close(monte_carlo, discounted_returns(rewards, mask, 0.9))
    immediate, _ = generalized_advantages(rewards, values, bootstrap, mask, 0.0, 0.7)
    torch.testing.assert_close(immediate, (rewards - values) * mask)
    with_values, targets = generalized_advantages(rewards, values, none, mask, 0.9, 1.0)
    torch.testing.assert_close(with_values, (discounted_returns(rewards, mask, 0.9) - values) * mask)
    torch.testing.assert_close(targets, discounted_returns(rewards, mask, 0.9))


def test_gae_checks_its_numbers(rollout):
    with pytest.raises(ValueError, match="lam"):
        generalized_advantages(*rollout, 0.9, 1.1)
