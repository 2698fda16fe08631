"""Gates that weigh whole trajectories."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from opd_core.objective.draft import Draft
from opd_core.objective.feedback import require
from opd_core.objective.gates.seen import Opened, Seen
from opd_core.objective.verifier import group_advantages
from opd_core.spec.variables.gates import AgreementGate, FireGate, ScopeGate, SequenceGate


def fire(gate: FireGate, seen: Seen) -> Opened:
    """FiRe-OPD (arXiv 2606.02684): the ``drop`` share of trajectories with the lowest mean teacher log-probability is
    silenced; tokens weigh (1 + alpha c_T) (1 + beta c_S), divided by the mean over the tokens that are left.

    c_T = 1 - H_T / max H_T and c_S = H_S / max H_S over the batch: a sure teacher, an unsure student.
    """
    feedback, mask = seen.feedback, seen.feedback.mask
    score = _sequence_mean(feedback.teacher_logp, mask)
    kept = torch.ones_like(score)
    kept[score.argsort(stable=True)[: math.floor(gate.drop * len(score))]] = 0.0
    sure = 1.0 - _of_largest(feedback.teacher_entropy)
    unsure = _of_largest(feedback.student_entropy)
    weights = (1.0 + gate.alpha * sure) * (1.0 + gate.beta * unsure) * kept[:, None] * mask
    speaking = (mask & (kept[:, None] > 0)).sum()
    return Opened(weights / (weights.sum() / speaking.clamp(min=1)).clamp(min=torch.finfo(weights.dtype).tiny))


def scope(gate: ScopeGate, seen: Seen) -> Opened:
    """SCOPE (arXiv 2604.10688): wrong answers are distilled, right ones imitated, each weighed within its prompt.

    Among the wrong answers of a prompt weights are proportional to teacher perplexity^(-1 / tau), among the right ones
    to student perplexity^(1 / tau); each set's weights have mean 1. A right answer has no distillation, and coefficient
    imitation x weight on log pi.
    """
    feedback, mask = seen.feedback, seen.feedback.mask
    who = "gates: 'scope'"
    reward = require(feedback.context.reward, "the verifier's rewards", who)
    group = require(feedback.context.group, "the prompt of each rollout", who)
    right = reward > 0.5
    same = (group[:, None] == group[None, :]) & (right[:, None] == right[None, :])
    # log perplexity = minus the mean log-probability
    teacher, student = (_sequence_mean(logp, mask) for logp in (feedback.teacher_logp, feedback.student_logp))
    score = torch.where(right, -student, teacher) / gate.tau
    weights = torch.exp(score - _log_sum(score, same)) * same.sum(1)
    wrong = torch.where(right, 0.0, weights)[:, None].expand_as(feedback.log_ratio)
    imitated = (gate.imitation * torch.where(right, weights, 0.0))[:, None].expand_as(feedback.log_ratio)
    return Opened(wrong, Draft({"imitation": imitated[mask]}))


def agreement(gate: AgreementGate, seen: Seen) -> Opened:
    """RG-OPD (arXiv 2607.04037): 1 where (A > 0 and L_T > L_S + delta) or (A <= 0 and L_T < L_S - delta), else 0.

    A = reward minus the mean of its prompt; L = mean log-probability of the trajectory.
    """
    feedback = seen.feedback
    advantages = group_advantages(feedback, "group_mean", "gates: 'agreement'")
    lead = _sequence_mean(feedback.log_ratio, feedback.mask)
    agree = torch.where(advantages > 0, lead > gate.delta, lead < -gate.delta)
    return Opened(agree.to(feedback.log_ratio.dtype)[:, None].expand_as(feedback.log_ratio))


def sequence(gate: SequenceGate, seen: Seen) -> Opened:
    """softmax over the batch of the mean teacher log-probability / tau, times the number of trajectories."""
    feedback = seen.feedback
    score = _sequence_mean(feedback.teacher_logp, feedback.mask) / gate.tau
    weights = score.softmax(0) * len(score)
    return Opened(weights[:, None].expand_as(feedback.log_ratio))


def _sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B] mean over a trajectory's tokens; 0 for one without tokens."""
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)


def _of_largest(values: Tensor) -> Tensor:
    largest = values.max() if values.numel() else values.new_zeros(())
    return values / largest.clamp(min=torch.finfo(values.dtype).tiny)


def _log_sum(score: Tensor, same: Tensor) -> Tensor:
    """[B] log of the sum of exp(score) over the rows that are the ``same`` as each."""
    return score[None, :].expand_as(same).masked_fill(~same, -torch.inf).logsumexp(1)
