"""Temporal credit: how the log-ratios of a rollout are summed over time.

Time is the action clock: tokens off the mask (prompt, tool output, padding) take no time, pass returns through
unchanged and get exactly zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """G_t = sum over actions k >= t of gamma^(k - t) r_k.

    rewards [B, T] in nats, mask [B, T] of actions -> [B, T]. gamma = 0 is immediate credit, 1 the return-to-go,
    whose policy gradient is that of the sequence reverse KL (MiniLLM, arXiv 2306.08543).
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must be in [0, 1] (got {gamma})")
    actions = mask.bool()
    returns = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0]) if rewards.shape[1] else rewards.new_zeros(rewards.shape[0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        running = torch.where(actions[:, t], rewards[:, t] + gamma * running, running)
        returns[:, t] = torch.where(actions[:, t], running, 0.0)
    return returns


def generalized_advantages(
    rewards: Tensor, values: Tensor, bootstrap: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: A_t = sum over l >= 0 of (gamma lam)^l delta_{t+l}.

    delta_t = r_t + gamma V_{t+1} - V_t. rewards, values, mask [B, T]; bootstrap [B] is the value after the last
    action: 0 where the sequence ended, V(s_end) where the length cap cut it (a cap is a truncation, not an end).
    Returns (advantages, targets = advantages + values), both [B, T] and 0 off the mask. Schulman et al., arXiv
    1506.02438; lam = 1 is the return minus the value, gamma = 0 the immediate reward minus the value.
    """
    for name, number in (("gamma", gamma), ("lam", lam)):
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"{name} must be in [0, 1] (got {number})")
    actions = mask.bool()
    advantages = torch.zeros_like(rewards)
    later, value_after = torch.zeros_like(bootstrap), bootstrap
    for t in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * value_after - values[:, t]
        advantage = delta + gamma * lam * later
        advantages[:, t] = torch.where(actions[:, t], advantage, 0.0)
        later = torch.where(actions[:, t], advantage, later)
        value_after = torch.where(actions[:, t], values[:, t], value_after)
    return advantages, torch.where(actions, advantages + values, 0.0)
