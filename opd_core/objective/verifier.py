"""A verifier beside the teacher: rewards become advantages within the group of one prompt's samples.

reward       A = w_d A_distillation + w (R - mean) / std     KDRL's joint objective (arXiv 2506.02208): the k2 term has
             coefficient w_d r on log pi(y), so it adds up like this; slime and MiMo add the same two on the advantage
reward_sign  A = A_R clip((p / pi)^sign(A_R), 1 - e, 1 + e)  RLSD (arXiv 2604.03128): the verifier gives the
             direction, the teacher the size
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.objective.feedback import Feedback, require
from opd_core.spec.variables.regularizers import Normalise, Reward, RewardSign


def group_advantages(feedback: Feedback, normalise: Normalise, who: str) -> Tensor:
    """[B] reward minus the mean of its prompt's samples, over their deviation for ``group_std``.

    A group whose rewards are all the same (one sample among them) has advantage 0: it says nothing.
    """
    reward = require(feedback.context.reward, "the verifier's rewards", who).to(feedback.log_ratio.dtype)
    group = require(feedback.context.group, "the prompt of each rollout", who)
    same = (group[:, None] == group[None, :]).to(reward.dtype)
    size = same.sum(1)
    centred = reward - same @ reward / size
    if normalise == "group_mean":
        return centred
    deviation = (same @ centred.square() / size).sqrt()
    return torch.where(deviation > 0, centred / deviation.clamp(min=1e-6), 0.0)


def reward_coefficients(rule: Reward, feedback: Feedback) -> Tensor:
    """[N] what is added to the coefficient on log pi(y): weight x the rollout's advantage."""
    advantages = group_advantages(feedback, rule.normalise, "regularizers: 'reward'")
    return rule.weight * advantages[:, None].expand_as(feedback.log_ratio)[feedback.mask]


def signed_coefficients(rule: RewardSign, feedback: Feedback) -> Tensor:
    """[N] what takes the place of the coefficient on log pi(y)."""
    advantages = group_advantages(feedback, rule.normalise, "regularizers: 'reward_sign'")
    spread = advantages[:, None].expand_as(feedback.log_ratio)[feedback.mask]
    ratio = (spread.sign() * feedback.log_ratio[feedback.mask]).exp()
    return spread * ratio.clamp(1.0 - rule.epsilon, 1.0 + rule.epsilon)
