"""Temporal credit: how the log-ratios of a rollout are summed over time, and what is taken off.

Time is the action clock: tokens off the mask (prompt, tool output, padding) take no time, pass returns through
unchanged and get exactly zero.

    immediate     A_t = r_t            gradient of the reverse KL at fixed states
    return_to_go  A_t = G_t            gradient of the sequence reverse KL (MiniLLM, arXiv 2306.08543)
    discounted    A_t = G_t^gamma
    normalised    A_t = G_t^gamma / sum_{k>=t} gamma^(k-t)
    gae           a learned value of the returns (gae.py)

A baseline that does not depend on the sampled token changes no expectation: expected = -K_t (vOPD, arXiv 2605.07865);
batch, position and group are means over other sequences, never over the token's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from opd_core.objective.feedback import Feedback, require
from opd_core.spec.variables.credit import Credit


@dataclass(frozen=True)
class CriticTargets:
    """What a critic should have said, on N packed rows: values, weights (0 = not asked), and their scale."""

    values: Tensor  # [N]
    weights: Tensor  # [N]
    scale: float  # a typical deviation: residuals are counted in it
    huber: float
    loss_weight: float

    def __getitem__(self, rows: slice | Tensor) -> CriticTargets:
        return replace(self, values=self.values[rows], weights=self.weights[rows])


@dataclass(frozen=True)
class Credited:
    """What each token is credited, [B, T] and 0 off the mask: ``parts`` by name, whose sum is the advantage.

    ``observed`` feeds the running statistics of ``PlanState``.
    """

    parts: Mapping[str, Tensor]
    values: Tensor | None = None  # [B, T] V(s_t) as it was used
    critic: CriticTargets | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    observed: Mapping[str, float] = field(default_factory=dict)

    @property
    def advantages(self) -> Tensor:
        """[B, T]."""
        first, *others = self.parts.values()
        return sum(others, start=first)


def returns_credit(credit: Credit, rewards: Tensor, feedback: Feedback) -> Credited:
    """Sums of ``rewards`` [B, T] (nats) over time, minus the baseline."""
    mask = feedback.mask
    returns = discounted_returns(rewards, mask, credit.discount)
    if credit.estimator == "normalised":
        returns = returns / remaining(rewards, mask, credit.gamma).clamp(min=1.0)
    parts = {"return": returns}
    if credit.baseline == "expected":
        parts["baseline"] = feedback.kl  # minus E[r] = -K
    elif credit.baseline != "none":
        parts["baseline"] = -sequence_baseline(credit.baseline, returns, feedback)
    return Credited(parts)


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """G_t = sum over actions k >= t of gamma^(k - t) r_k.

    rewards [B, T] in nats, mask [B, T] of actions -> [B, T]. gamma = 0 is immediate credit, 1 the return-to-go,
    whose policy gradient is that of the sequence reverse KL (MiniLLM, arXiv 2306.08543).
    """
    _unit_interval("gamma", gamma)
    actions = mask.bool()
    returns = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0]) if rewards.shape[1] else rewards.new_zeros(rewards.shape[0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        running = torch.where(actions[:, t], rewards[:, t] + gamma * running, running)
        returns[:, t] = torch.where(actions[:, t], running, 0.0)
    return returns


def remaining(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """[B, T] sum over actions k >= t of gamma^(k - t): the return if every reward were 1; 0 off the mask."""
    return discounted_returns(torch.ones_like(rewards), mask, gamma)


def generalized_advantages(
    rewards: Tensor, values: Tensor, bootstrap: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: A_t = sum over l >= 0 of (gamma lam)^l delta_{t+l}.

    delta_t = r_t + gamma V_{t+1} - V_t. rewards, values, mask [B, T]; bootstrap [B] is the value after the last
    action: 0 where the sequence ended, V(s_end) where the length cap cut it (a cap is a truncation, not an end).
    Returns (advantages, targets = advantages + values), both [B, T] and 0 off the mask. Schulman et al., arXiv
    1506.02438; lam = 1 is the return minus the value, gamma = 0 the immediate reward minus the value.
    """
    _unit_interval("gamma", gamma)
    _unit_interval("lam", lam)
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


def sequence_baseline(kind: str, returns: Tensor, feedback: Feedback) -> Tensor:
    """[B, T] mean return of other sequences' tokens: of the whole batch, at the same position, or of the same prompt.

    Where there is no other token to average (a batch of one, a position that no other sequence reaches) it is 0.
    Positions are counted in actions.
    """
    mask = feedback.mask.to(returns.dtype)
    sums, counts = (returns * mask).sum(1, keepdim=True), mask.sum(1, keepdim=True)
    if kind == "batch":
        total, number = sums.sum(0) - sums, counts.sum(0) - counts
    elif kind == "group":
        group = require(feedback.context.group, "the prompt of each rollout", "credit.baseline 'group'")
        same = (group[:, None] == group[None, :]).to(returns.dtype)
        total, number = same @ sums - sums, same @ counts - counts
    else:
        position = (feedback.mask.cumsum(1) - 1).clamp(min=0)
        longest = int(position.max()) + 1 if position.numel() else 0
        zeros = returns.new_zeros((len(returns), longest))
        at = zeros.scatter_add(1, position, returns * mask)
        there = zeros.scatter_add(1, position, mask)
        total = (at.sum(0) - at).gather(1, position)
        number = (there.sum(0) - there).gather(1, position)
    return torch.where(number > 0, total / number.clamp(min=1.0), 0.0) * mask


def _unit_interval(name: str, number: float) -> None:
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must be in [0, 1] (got {number})")
