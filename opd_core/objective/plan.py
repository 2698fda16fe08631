"""The update as data: feedback is turned, without gradients, into an UpdatePlan.

Every method of both routes is a plan. The force that a plan puts on the logits of one row is

    f = a - (sum a) pi + sum_k w_k f_k ,     a = c e_y + route ,

where c is the coefficient on log pi(y), the route a signed sparse measure over the vocabulary, and f_k the negative
gradient of divergence k. ``plan_loss`` (loss.py) is the one function that applies it.

``build_plan`` reads in the order of the taxonomy: what the student is pulled towards, the route (direct.py or
policy_gradient.py), gates, regularizers, aggregation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from opd_core.objective.aggregate import aggregation_of_heard, aggregation_weights
from opd_core.objective.aim import aim
from opd_core.objective.credit import CriticTargets, discounted_returns
from opd_core.objective.direct import direct_draft
from opd_core.objective.draft import DivergenceTerm as DivergenceTerm
from opd_core.objective.draft import mean, one_route
from opd_core.objective.feedback import Feedback, unpack
from opd_core.objective.gates import Gated, apply_gates
from opd_core.objective.gates.seen import Seen
from opd_core.objective.policy_gradient import log_ratio_draft
from opd_core.objective.regularizers import golden_rows, regularize
from opd_core.objective.shared import Shared
from opd_core.objective.state import PlanState as PlanState
from opd_core.spec import MethodSpec
from opd_core.spec.variables.objective import DirectObjective
from opd_core.spec.variables.regularizers import GoldenData, Reward

_START = PlanState()


@dataclass(frozen=True)
class TokenView:
    """What the plan did with each token, [B, T], 0 off the mask: for display and records, not for the loss.

    returns: return-to-go of the log-ratios (gamma = 1). advantages: the credit that was used (0 in the direct
    route, which has none). gates: how loudly the token speaks, 1 = fully; ``gate_by_name``: each gate by itself.
    values: what a critic expected of the return (None without one).
    """

    log_ratio: Tensor
    returns: Tensor
    advantages: Tensor
    gates: Tensor
    gate_by_name: Mapping[str, Tensor] = field(default_factory=dict)
    values: Tensor | None = None


@dataclass(frozen=True)
class UpdatePlan:
    """One optimizer step's update on N completion tokens (row-major over the action mask)."""

    tokens: Tensor  # [N] sampled ids
    components: Mapping[str, Tensor]  # name -> [N]; their sum is the coefficient on log pi(y)
    route_ids: Tensor  # [N, K]
    route_weights: Tensor  # [N, K] signed, unnormalised
    divergences: tuple[DivergenceTerm, ...]
    weights: Tensor  # [N] share of each token in the aggregate; loss = sum(weights x plan_loss) / normalizer
    normalizer: float  # global: the same whatever the split into micro-batches or ranks
    temperature: float
    mask: Tensor  # [B, T]
    view: TokenView
    critic: CriticTargets | None = None
    shared: Shared | None = None  # the student is given that its token is shared, where this says so (shared.py)
    statistics: Mapping[str, float] = field(default_factory=dict)
    observed: Mapping[str, float] = field(default_factory=dict)  # for PlanState.advanced

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def coefficients(self) -> Tensor:
        """[N] coefficient on log pi(y_t); 0 where the method has none."""
        zero = torch.zeros_like(self.weights)
        return sum(self.components.values(), start=zero)

    def __getitem__(self, rows: slice | Tensor) -> UpdatePlan:
        """The plan of some rows; the normalizer stays that of the whole step."""
        return replace(
            self,
            tokens=self.tokens[rows],
            components={name: part[rows] for name, part in self.components.items()},
            route_ids=self.route_ids[rows],
            route_weights=self.route_weights[rows],
            divergences=tuple(term[rows] for term in self.divergences),
            weights=self.weights[rows],
            critic=None if self.critic is None else self.critic[rows],
            shared=None if self.shared is None else self.shared[rows],
        )


@torch.no_grad()
def build_plan(method: MethodSpec, feedback: Feedback, state: PlanState = _START) -> UpdatePlan:
    """Turn feedback into the update of ``method``.

    Raises ValueError when the feedback was taken at another softmax temperature than the method's, MissingFeedback
    (a ValueError) when it lacks something that the method needs.
    """
    _check_temperatures(method, feedback)
    told, mask = feedback, feedback.mask
    feedback = aim(method.objective, feedback)
    values, critic, observed = None, None, {}
    advantages = torch.zeros_like(feedback.log_ratio)
    importance = torch.ones_like(feedback.log_ratio[mask])
    if isinstance(method.objective, DirectObjective):
        draft = direct_draft(method.objective, method, feedback)
    else:
        draft, credited, importance = log_ratio_draft(method.objective, method, feedback, state)
        advantages, values = credited.advantages, credited.values
        critic, observed = credited.critic, dict(credited.observed)
    gated = _gate(method, feedback, advantages, state)
    total = draft.scaled(gated.weights[mask] * _distillation_weight(method)).plus(gated.added)
    others = regularize(method.regularizers, feedback, importance)
    data = feedback.context.from_data
    weights, normalizer = aggregation_weights(method.aggregation, mask, gated.weights, data)
    if feedback.shared is not None:
        count = normalizer
        weights, normalizer, factors = aggregation_of_heard(
            method.aggregation, mask, feedback.heard, gated.weights, data, of_all=(weights, count)
        )
        total, others = total.scaled(feedback.heard[mask].to(weights.dtype)), others.scaled(factors)
        if critic is not None:
            critic = replace(critic, loss_weight=critic.loss_weight * normalizer / count)
    total = total.plus(others)
    route = one_route(total.routes, feedback.tokens[mask], feedback.log_ratio)
    sizes = {f"size_{name}": mean(part.abs()) for name, part in total.components.items()}
    if total.routes:
        sizes["size_route"] = mean(route.weights.abs().sum(1))
    return UpdatePlan(
        tokens=feedback.tokens[mask],
        components=dict(total.components),
        route_ids=route.ids,
        route_weights=route.weights,
        divergences=total.divergences,
        weights=weights,
        normalizer=normalizer,
        temperature=method.objective.temperature,
        mask=mask,
        view=TokenView(
            log_ratio=told.log_ratio,
            returns=discounted_returns(told.log_ratio, mask, 1.0),
            advantages=advantages,
            gates=gated.weights,
            gate_by_name=gated.by_name,
            values=values,
        ),
        critic=critic,
        shared=feedback.shared,
        statistics={**total.statistics, **gated.statistics, **sizes},
        observed=observed,
    )


def _check_temperatures(method: MethodSpec, feedback: Feedback) -> None:
    objective, context = method.objective, feedback.context
    taken = (context.temperature, context.effective_teacher_temperature)
    wanted = (objective.temperature, objective.effective_teacher_temperature)
    if taken != wanted:
        raise ValueError(f"feedback at temperatures (student, teacher) {taken}, method at {wanted}")


def _gate(method: MethodSpec, feedback: Feedback, advantages: Tensor, state: PlanState) -> Gated:
    """The method's gates; special tokens, data rows and what the teacher says nothing of are silenced as if by gates of
    their own.
    """
    gated = apply_gates(method.gates, Seen(feedback, advantages, state))
    silenced = {}
    if method.support.special_tokens == "exclude":
        special = torch.tensor(feedback.context.special_ids, device=feedback.tokens.device, dtype=torch.long)
        silenced["special_tokens"] = (~torch.isin(feedback.tokens, special)) & feedback.mask
    if any(isinstance(rule, GoldenData) for rule in method.regularizers):
        silenced["golden"] = unpack(1.0 - golden_rows(feedback), feedback.mask)
    if feedback.shared is not None:
        silenced["aligned"] = feedback.heard
    for name, weights in silenced.items():
        weights = weights.to(gated.weights.dtype)
        gated = replace(gated, weights=gated.weights * weights, by_name={**gated.by_name, name: weights})
    return gated


def _distillation_weight(method: MethodSpec) -> float:
    return next((rule.distillation_weight for rule in method.regularizers if isinstance(rule, Reward)), 1.0)
