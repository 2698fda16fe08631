"""Regularizers: forces that are not the distillation's. They pass no gate and add up.

reference_kl   weight x KL(student || reference), or the other way round: a divergence term with its own target
entropy        weight x KL(student || uniform) = weight x (log V - H): a divergence term, too
trust_region   k2 gradient of KL(student || mu): coefficient -weight (log pi - log mu)
golden         cross-entropy on rows taken from data: coefficient weight; those rows are not distilled
reward         weight x the verifier's advantage (verifier.py)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opd_core.objective.draft import DivergenceTerm, Draft
from opd_core.objective.feedback import Feedback, require
from opd_core.objective.targets import UniformTarget
from opd_core.objective.verifier import reward_coefficients
from opd_core.spec.variables.regularizers import (
    BehaviourTrustRegion,
    EntropyBonus,
    GoldenData,
    ReferenceKl,
    Regularizer,
    Reward,
)


def regularize(regularizers: Sequence[Regularizer], feedback: Feedback, importance: Tensor) -> Draft:
    """The forces of all regularizers, N rows. ``importance`` [N] weighs those on sampled tokens."""
    total = Draft()
    for rule in regularizers:
        if isinstance(rule, ReferenceKl):
            total = total.plus(_reference_kl(rule, feedback))
        elif isinstance(rule, EntropyBonus):
            total = total.plus(_entropy(rule, feedback))
        elif isinstance(rule, BehaviourTrustRegion):
            total = total.plus(Draft({"trust_region": importance * _trust_region(rule, feedback)}))
        elif isinstance(rule, GoldenData):
            total = total.plus(Draft({"golden": rule.weight * golden_rows(feedback)}))
        elif isinstance(rule, Reward):
            total = total.plus(Draft({"reward": importance * reward_coefficients(rule, feedback)}))
    return total


def golden_rows(feedback: Feedback) -> Tensor:
    """[N] 1 on tokens of rows that were taken from data."""
    from_data = require(feedback.context.from_data, "the origin of each row", "regularizers: 'golden'")
    return from_data[:, None].expand_as(feedback.mask)[feedback.mask].to(feedback.log_ratio.dtype)


def _reference_kl(rule: ReferenceKl, feedback: Feedback) -> Draft:
    reference = require(
        feedback.context.reference, "the student at the start of the run", "regularizers: 'reference_kl'"
    )
    weight = feedback.log_ratio.new_full((int(feedback.mask.sum()),), rule.weight)
    kind = "reverse_kl" if rule.direction == "reverse" else "forward_kl"
    term = DivergenceTerm(kind, weight, reference, target_temperature=feedback.context.temperature)  # type: ignore[arg-type]
    return Draft(divergences=(term,))


def _entropy(rule: EntropyBonus, feedback: Feedback) -> Draft:
    rows = int(feedback.mask.sum())
    weight = feedback.log_ratio.new_full((rows,), rule.weight)
    uniform = UniformTarget(rows, max(1, feedback.vocabulary), weight)
    return Draft(divergences=(DivergenceTerm("reverse_kl", weight, uniform),))


def _trust_region(rule: BehaviourTrustRegion, feedback: Feedback) -> Tensor:
    behaviour = feedback.context.behaviour_logp
    if behaviour is None:  # the rollout is the student's own: there is nowhere to go back to
        return torch.zeros_like(feedback.log_ratio[feedback.mask])
    return -rule.weight * (feedback.student_logp - behaviour)[feedback.mask]
