"""GAE-OPD: a learned value for log-ratio returns (proposed, untested, in arXiv 2606.22793; this formulation is ours).

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t),    A_t = sum_l (gamma lam)^l delta_{t+l}

The critic's output u_t (``Feedback.values``) becomes V by ``credit.critic.form``:

    value         V = u
    split         V = -K_t + gamma u: what is known exactly is not learned. delta = [r + K] + gamma [V(s_{t+1}) - u], so
                  gamma = 0 is exactly the vOPD residual, whatever the critic says
    differential  split on rewards r - mean r, so that a token costs nothing on average. Log-ratio returns are negative
                  on average: undiscounted they reward ending early, and this takes that reward away. It is not the
                  sequence reverse KL any more
    per_token     u = mean log-ratio over the remaining tokens; A is counted per remaining token, too

V after the last action is 0 at end of sequence and V(s_end) at the length cap. With end_of_sequence 'immediate' the
token that ends a sequence is credited r + K alone: V of the end is then what the critic expects of going on. Until the
critic is ready (``PlanState.critic_ready``) credit is immediate, and only the critic learns from time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.objective.credit import Credited, CriticTargets, generalized_advantages, remaining
from opd_core.objective.draft import correlation, mean
from opd_core.objective.feedback import Feedback, require
from opd_core.objective.state import PlanState
from opd_core.spec.variables.credit import Credit

_WHO = "credit.estimator 'gae'"
_SMALLEST_SCALE = 0.05  # nats: a critic of an agreeing pair should not chase noise


def gae_credit(credit: Credit, rewards: Tensor, feedback: Feedback, state: PlanState) -> Credited:
    """Credit for ``rewards`` [B, T] by generalised advantages, and what the critic should learn."""
    world = _world(credit, rewards, feedback, state)
    advantages, returns = _advantages(credit, world, credit.gamma)
    used = advantages if state.critic_ready else _advantages(credit, world, 0.0)[0]
    targets, asked = _targets(credit, world, returns)
    mask = feedback.mask
    packed, weights = targets[mask], asked[mask].to(targets.dtype)
    learned = packed[weights > 0]
    observed = {"reward_mean": mean(rewards[mask])}
    if len(learned) > 1:
        observed |= {"value_mean": float(learned.mean()), "value_std": float(learned.std())}
    return Credited(
        parts={
            "log_ratio": rewards,
            "baseline": feedback.kl,
            "temporal": torch.where(mask, used - (rewards + feedback.kl), 0.0),
        },
        values=world.values,
        critic=CriticTargets(
            packed,
            weights,
            scale=max(_SMALLEST_SCALE, state.running.get("value_std", observed.get("value_std", 1.0))),
            huber=credit.critic.huber,
            loss_weight=credit.critic.loss_weight,
        ),
        statistics=_quality(credit, world),
        observed=observed,
    )


def value_at_end(credit: Credit, kl: Tensor, outputs: Tensor, state: PlanState) -> Tensor:
    """V(s_end) [B] for the bootstrap of truncated rollouts, from K and the critic's output at that state."""
    match credit.critic.form:
        case "value":
            return outputs
        case "split":
            return credit.gamma * outputs - kl
        case "differential":
            return credit.gamma * outputs - (kl + state.running.get("reward_mean", 0.0))
        case "per_token":
            return torch.zeros_like(outputs)  # the mean runs over the tokens that were written


@dataclass(frozen=True)
class _World:
    """Rewards and values as the estimator sees them, [B, T]."""

    rewards: Tensor
    values: Tensor  # V
    known: Tensor  # the part of V that is not learned
    outputs: Tensor  # u
    end: Tensor  # [B] V after the last action
    counts: Tensor  # what a return is divided by
    mask: Tensor
    stops: Tensor  # tokens whose end is credited immediately


def _world(credit: Credit, rewards: Tensor, feedback: Feedback, state: PlanState) -> _World:
    form, mask = credit.critic.form, feedback.mask
    split = form in ("split", "differential")
    outputs = feedback.values
    if outputs is None:
        if not (split and credit.gamma == 0.0):
            require(outputs, "the critic's values", _WHO)
        outputs = torch.zeros_like(rewards)
    outputs = torch.where(mask, outputs, 0.0)
    average = 0.0
    if form == "differential":
        average = state.running.get("reward_mean", mean(rewards[mask]))
    rewards = torch.where(mask, rewards - average, 0.0)
    counts = remaining(rewards, mask, credit.gamma).clamp(min=1.0) if form == "per_token" else torch.ones_like(rewards)
    known = torch.where(mask, -(feedback.kl + average), 0.0) if split else torch.zeros_like(rewards)
    values = known + credit.gamma * outputs if split else counts * outputs
    end, stops = _end(credit, feedback, values, average)
    return _World(rewards, values, known, outputs, end, counts, mask, stops)


def _end(credit: Credit, feedback: Feedback, values: Tensor, average: float) -> tuple[Tensor, Tensor]:
    """V after the last action [B], and the tokens [B, T] whose end is credited immediately."""
    mask = feedback.mask
    nothing = values.new_zeros(len(values))
    truncated = feedback.truncated
    counts = credit.gamma > 0.0 and credit.critic.form != "per_token"
    if counts and truncated is not None and bool(truncated.any()):
        end = require(feedback.bootstrap, "the value after the last token of truncated rollouts", _WHO).to(values.dtype)
    else:
        end = nothing if feedback.bootstrap is None else feedback.bootstrap.to(values.dtype)
    stops = torch.zeros_like(mask)
    if credit.critic.end_of_sequence == "immediate" and credit.gamma > 0.0:
        ended = torch.ones_like(nothing, dtype=torch.bool) if truncated is None else ~truncated.bool()
        last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
        stops = last & ended[:, None]
        # delta = r + gamma end - V is r + K exactly when going on is worth this.
        going_on = (values + feedback.kl + average) / credit.gamma
        end = torch.where(ended, torch.where(stops, going_on, 0.0).sum(1), end)
    return end, stops


def _advantages(credit: Credit, world: _World, gamma: float) -> tuple[Tensor, Tensor]:
    """(advantages, lambda-returns), both [B, T]."""
    values = world.values
    if gamma != credit.gamma:  # until the critic is ready: only the known part
        values = world.known
        zero = torch.zeros_like(world.end)
        return generalized_advantages(world.rewards, values, zero, world.mask, 0.0, credit.lam)
    advantages, returns = generalized_advantages(world.rewards, values, world.end, world.mask, gamma, credit.lam)
    return advantages / world.counts, returns


def _targets(credit: Credit, world: _World, returns: Tensor) -> tuple[Tensor, Tensor]:
    """(what u_t should have been, where it is asked), both [B, T]."""
    if credit.critic.form not in ("split", "differential"):
        return returns / world.counts, world.mask
    after, later = torch.zeros_like(returns), world.end
    for t in range(returns.shape[1] - 1, -1, -1):
        after[:, t] = torch.where(world.mask[:, t], later, 0.0)
        later = torch.where(world.mask[:, t], returns[:, t], later)
    return after, world.mask & ~world.stops


def _quality(credit: Credit, world: _World) -> dict[str, float]:
    """How much of the sampled returns the values explain, and whether they only measure the remaining length."""
    _, sampled = generalized_advantages(world.rewards, world.values, world.end, world.mask, credit.gamma, 1.0)
    mask = world.mask
    returns, values = (sampled / world.counts)[mask], (world.values / world.counts)[mask]
    left = remaining(world.rewards, mask, 1.0)[mask]
    spread = float(returns.var()) if len(returns) > 1 else 0.0
    explained = 1.0 - float((returns - values).var()) / spread if spread > 0 else 0.0
    return {
        "critic_explained_variance": explained,
        "critic_length_correlation": correlation(values, left),
        "critic_value_mean": mean(values),
    }
