"""The update as data: feedback is turned, without gradients, into an UpdatePlan.

Every method of both routes is a plan. The force that a plan puts on the logits of one row is

    f = a - (sum a) pi + sum_k w_k f_k ,     a = c e_y + route ,

where c is the coefficient on log pi(y), the route a signed sparse measure over the vocabulary, and f_k the negative
gradient of divergence k. ``plan_loss`` (loss.py) is the one function that applies it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from opd_core.objective.credit import discounted_returns
from opd_core.objective.feedback import Feedback, row_chunks
from opd_core.objective.importance import importance_weights
from opd_core.objective.routing import Route, counterfactual_route
from opd_core.objective.shaping import shape
from opd_core.objective.support import TokenSet, choose_tokens, coarsen
from opd_core.objective.targets import Target
from opd_core.spec import CounterfactualRouting, DirectObjective, MethodSpec, TopKSupport
from opd_core.spec.method import Divergence, Remainder


@dataclass(frozen=True)
class DivergenceTerm:
    """weight_n x divergence(student_n, target_n) on every row n, over the whole vocabulary or a set of tokens."""

    kind: Divergence
    weight: Tensor  # [N]
    target: Target  # N rows
    skew: float = 0.5  # beta of the jsd, alpha of the skew KLs
    tokens: TokenSet | None = None  # N rows; None = the whole vocabulary
    remainder: Remainder = "tail"

    def __getitem__(self, rows: slice | Tensor) -> DivergenceTerm:
        tokens = None if self.tokens is None else self.tokens[rows]
        return replace(self, weight=self.weight[rows], target=self.target[rows], tokens=tokens)


@dataclass(frozen=True)
class TokenView:
    """What the plan did with each token, [B, T], 0 off the mask: for display and records, not for the loss.

    returns: return-to-go of the log-ratios (gamma = 1). advantages: the credit that was used (0 in the direct
    route, which has none). gates: how loudly the token speaks, 1 = fully.
    """

    log_ratio: Tensor
    returns: Tensor
    advantages: Tensor
    gates: Tensor


@dataclass(frozen=True)
class UpdatePlan:
    """One optimizer step's update on N completion tokens (row-major over the action mask)."""

    tokens: Tensor  # [N] sampled ids
    components: dict[str, Tensor]  # name -> [N]; their sum is the coefficient on log pi(y)
    route_ids: Tensor  # [N, K]
    route_weights: Tensor  # [N, K] signed, unnormalised
    divergences: tuple[DivergenceTerm, ...]
    weights: Tensor  # [N] share of each token in the aggregate; loss = sum(weights x plan_loss) / normalizer
    normalizer: float  # global: the same whatever the split into micro-batches or ranks
    temperature: float
    mask: Tensor  # [B, T]
    view: TokenView
    statistics: dict[str, float] = field(default_factory=dict)

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
        )


@dataclass(frozen=True)
class PlanState:
    """What a plan may know beside the batch: how far the run is."""

    progress: float = 0.0  # share of the steps that are done, in [0, 1]


@torch.no_grad()
def build_plan(method: MethodSpec, feedback: Feedback, state: PlanState = PlanState()) -> UpdatePlan:  # noqa: ARG001
    """Turn feedback into the update of ``method``.

    Raises ValueError when the feedback was taken at another softmax temperature than the method's.
    """
    objective = method.objective
    if feedback.context.temperature != objective.temperature:
        raise ValueError(f"feedback at temperature {feedback.context.temperature}, method at {objective.temperature}")
    mask = feedback.mask
    gates = mask.to(feedback.log_ratio.dtype)
    weights, normalizer = aggregation_weights(method.aggregation.per, gates)
    no_route = feedback.tokens.new_zeros((int(mask.sum()), 0))
    plan = UpdatePlan(
        tokens=feedback.tokens[mask],
        components={},
        route_ids=no_route,
        route_weights=no_route.to(gates.dtype),
        divergences=(),
        weights=weights,
        normalizer=normalizer,
        temperature=objective.temperature,
        mask=mask,
        view=TokenView(
            log_ratio=feedback.log_ratio,
            returns=discounted_returns(feedback.log_ratio, mask, 1.0),
            advantages=torch.zeros_like(gates),
            gates=gates,
        ),
    )
    if isinstance(objective, DirectObjective):
        return _direct_plan(plan, objective, method, feedback)
    return _log_ratio_plan(plan, method, feedback)


def _direct_plan(plan: UpdatePlan, objective: DirectObjective, method: MethodSpec, feedback: Feedback) -> UpdatePlan:
    """One divergence term, over the whole vocabulary or over the support's tokens."""
    kind = objective.effective_divergence
    term = DivergenceTerm(
        kind,
        plan.view.gates[plan.mask],
        feedback.teacher,
        skew=objective.beta if kind == "jsd" else objective.alpha,
    )
    if not isinstance(method.support, TopKSupport):
        return replace(plan, divergences=(term,))
    parts, left_out = [], {"support_student_tail": 0.0, "support_teacher_tail": 0.0}
    for rows in row_chunks(feedback.student):
        student, teacher = (
            rows_of[rows].log_probs(plan.temperature) for rows_of in (feedback.student, feedback.teacher)
        )
        tokens = choose_tokens(method.support.kind, method.support.k, student, teacher)
        parts.append(tokens)
        for name, logp in (("support_student_tail", student), ("support_teacher_tail", teacher)):
            left_out[name] += float(coarsen(logp, tokens, "tail")[:, -1].exp().sum()) / max(1, len(plan))
    if not parts:
        return replace(plan, divergences=(term,))
    tokens = TokenSet(torch.cat([part.ids for part in parts]), torch.cat([part.keep for part in parts]))
    term = replace(term, tokens=tokens, remainder=method.support.remainder)
    return replace(plan, divergences=(term,), statistics=left_out)


def _log_ratio_plan(plan: UpdatePlan, method: MethodSpec, feedback: Feedback) -> UpdatePlan:
    """Credit, then the coefficient on log pi(y), then the route of what is suppressed."""
    mask = plan.mask
    returns = discounted_returns(shape(feedback.log_ratio, method.shaping), mask, method.credit.discount)
    components = {"return": returns}
    if method.credit.baseline == "expected":
        components["baseline"] = feedback.kl  # minus E[r] = -K
    advantages = sum(components.values(), start=torch.zeros_like(returns))
    importance, truncated = importance_weights(method.importance, feedback)
    scale = importance * plan.view.gates
    plan = replace(
        plan,
        components={name: (scale * part)[mask] for name, part in components.items()},
        view=replace(plan.view, advantages=advantages),
        statistics={"importance_truncated": _share(truncated[mask], mask[mask])},
    )
    if isinstance(method.routing, CounterfactualRouting):
        signal = shape(feedback.log_ratio, method.shaping) if method.routing.magnitude == "log_ratio" else advantages
        plan = _routed(plan, method.routing, feedback, signal=signal[mask], scale=scale[mask])
    return plan


def _routed(
    plan: UpdatePlan, routing: CounterfactualRouting, feedback: Feedback, *, signal: Tensor, scale: Tensor
) -> UpdatePlan:
    """Route what a negative ``signal`` [N] (log-ratio or advantage) takes from suppressed tokens."""
    parts = [
        counterfactual_route(
            feedback.student[rows].log_probs(plan.temperature),
            feedback.teacher[rows].log_probs(plan.temperature),
            plan.tokens[rows],
            student_top_k=routing.student_top_k,
            teacher_top_k=routing.teacher_top_k,
            weighting=routing.weighting,
        )
        for rows in row_chunks(feedback.student)
    ]
    if not parts:
        return plan
    route = Route(*(torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "weights", "active")))
    triggered = route.active & (signal < 0)
    moved = torch.where(triggered, -signal, 0.0) * scale
    components = dict(plan.components)
    empty = route.empty & triggered
    if routing.magnitude == "log_ratio":
        # Where |r| is what is moved, |r| is also what is taken away, whatever the credit says.
        components = {name: torch.where(triggered, 0.0, part) for name, part in components.items()}
        components["transfer"] = -moved
    if routing.fallback == "abstain":
        components = {name: torch.where(empty, 0.0, part) for name, part in components.items()}
    return replace(
        plan,
        components=components,
        route_ids=route.ids,
        route_weights=routing.strength * moved[:, None] * route.weights,
        statistics={
            **plan.statistics,
            "route_triggered": _share(triggered, torch.ones_like(triggered)),
            "route_empty": _share(empty, triggered),
        },
    )


def _share(part: Tensor, of: Tensor) -> float:
    """The share of ``of`` that is also ``part``; 0 where there is nothing to share."""
    return float(part.sum()) / max(1, int(of.sum()))


def aggregation_weights(per: Literal["token", "sequence"], gates: Tensor) -> tuple[Tensor, float]:
    """(weights [N], normalizer) such that the step's loss is sum(weights x token loss) / normalizer.

    token: every token weighs the same. sequence: every sequence weighs the same, whatever its length.
    The counts are those of the whole step. An empty step has normalizer 1 and loss 0.
    """
    mask = gates > 0
    lengths = mask.sum(1)
    if per == "token":
        return gates.new_ones(int(lengths.sum())), float(max(1, int(lengths.sum())))
    share = 1.0 / lengths.clamp(min=1).to(gates.dtype)
    weights = share[:, None].expand_as(gates)[mask]
    return weights, float(max(1, int((lengths > 0).sum())))
