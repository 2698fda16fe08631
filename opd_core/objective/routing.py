"""Vocabulary routing: where a suppressed token's mass should go.

Softmax by itself spreads it in proportion to pi_v (pi_v + pi_y - ||pi||^2), towards what the student already likes,
whatever the teacher thinks. CR-OPD (proposed, untested, in arXiv 2606.22793; this formulation is ours) names the
destination: alternatives that the teacher supports, the student can reach, and the teacher likes better than the
student does. At strength 1 the force on the logits is then exactly magnitude x (rho - e_y).

Its published relatives: AOPD (arXiv 2605.06387) lets forward KL take over where the teacher gives a token less than the
student; APO (arXiv 2602.05717) pushes the token by lambda |A| and pulls an anchor's other favourites up by beta |A|
pi_k / sum_S anchor; TrOPD (arXiv 2606.01249) clips, masks or distils where p / pi is an outlier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.objective.candidates import Candidates, top_candidates
from opd_core.objective.draft import DivergenceTerm, Draft, SparseForce, share
from opd_core.objective.feedback import Feedback, require, row_chunks
from opd_core.objective.support import TokenSet, among
from opd_core.spec.variables.routing import (
    AopdRouting,
    ApoRouting,
    CounterfactualRouting,
    OutlierRouting,
    Routing,
    Weighting,
)


@dataclass(frozen=True)
class Route:
    """Destinations for the mass of N sampled tokens.

    ``active`` rows have r(y) < 0. ``weights`` of a row sum to 1, or are all 0 where the row is not active or nothing
    qualifies (``empty``). The sampled token is never a destination.
    """

    ids: Tensor  # [N, K]
    weights: Tensor  # [N, K]
    active: Tensor  # [N] bool

    @property
    def empty(self) -> Tensor:
        """[N] bool: active, but without a destination."""
        return self.active & (self.weights.sum(1) == 0)


def counterfactual_route(
    student_logp: Tensor,
    teacher_logp: Tensor,
    sampled: Tensor,
    *,
    student_top_k: int,
    teacher_top_k: int,
    weighting: Weighting,
    beta: float = 0.5,
) -> Route:
    """The counterfactual route of each row; log-probabilities [N, V], sampled ids [N] -> K = min(teacher_top_k, V).

    Candidates are the tokens v != y in both models' top-k with r(v) = log p(v) - log pi(v) > 0. Weights before
    normalisation: teacher p(v), deficit p(v) - pi(v), geometric p(v)^beta pi(v)^(1 - beta).
    """
    own = sampled[:, None]
    active = (teacher_logp.gather(1, own) < student_logp.gather(1, own))[:, 0]
    candidates = top_candidates(student_logp, teacher_logp, max(student_top_k, teacher_top_k))
    return route_among(
        candidates,
        active,
        student_top_k=student_top_k,
        teacher_top_k=teacher_top_k,
        weighting=weighting,
        beta=beta,
    )


def route_among(
    candidates: Candidates,
    active: Tensor,
    *,
    student_top_k: int,
    teacher_top_k: int,
    weighting: Weighting,
    beta: float,
) -> Route:
    """The same from both models' favourites, for the rows that are ``active`` [N]: they must have r(y) < 0."""
    supported, reachable = candidates.teacher.first(teacher_top_k), candidates.student.first(student_top_k)
    ours, theirs = supported.student_logp, supported.teacher_logp
    # r(v) > 0 leaves the sampled token out: an active row has r(y) < 0.
    qualifies = among(supported.ids, reachable.ids) & (theirs > ours)
    match weighting:
        case "teacher":
            raw = theirs.exp()
        case "deficit":
            raw = theirs.exp() - ours.exp()
        case "geometric":
            raw = (beta * theirs + (1.0 - beta) * ours).exp()
    raw = torch.where(qualifies & active[:, None], raw, 0.0)
    total = raw.sum(1, keepdim=True)
    weights = torch.where(total > 0, raw / total.clamp(min=torch.finfo(raw.dtype).tiny), 0.0)
    return Route(supported.ids, weights, active)


@dataclass(frozen=True)
class Suppression:
    """What a routing rule sees of N packed tokens: named coefficients, the shaped signal, importance weights."""

    components: Mapping[str, Tensor]
    signal: Tensor
    importance: Tensor

    @property
    def advantages(self) -> Tensor:
        """[N] sum of the components."""
        return sum(self.components.values(), start=torch.zeros_like(self.signal))


def apply_routing(routing: Routing, feedback: Feedback, told: Suppression) -> Draft:
    """Coefficients, routes and divergence terms after routing; importance weights included."""
    if isinstance(routing, CounterfactualRouting):
        draft = _counterfactual(routing, feedback, told)
    elif isinstance(routing, AopdRouting):
        draft = _aopd(routing, feedback, told)
    elif isinstance(routing, ApoRouting):
        draft = _apo(routing, feedback, told)
    elif isinstance(routing, OutlierRouting):
        draft = _outlier(routing, feedback, told)
    else:
        draft = Draft(dict(told.components))
    scale = told.importance
    # Divergences are taken at the state, whoever chose the token: they need no importance weight.
    weighted = Draft(draft.components, draft.routes).scaled(scale)
    return Draft(weighted.components, weighted.routes, draft.divergences, draft.statistics)


def _counterfactual(routing: CounterfactualRouting, feedback: Feedback, told: Suppression) -> Draft:
    """Move |signal| or |A| of suppressed tokens along their route; the coefficient that suppresses them stays."""
    mask = feedback.mask
    deficit = _deficit(feedback) if routing.trigger == "probability" else feedback.log_ratio[mask]
    active = deficit < -routing.threshold
    route = route_among(
        feedback.candidates(max(routing.student_top_k, routing.teacher_top_k)),
        active,
        student_top_k=routing.student_top_k,
        teacher_top_k=routing.teacher_top_k,
        weighting=routing.weighting,
        beta=routing.beta,
    )
    signal = told.signal if routing.magnitude == "log_ratio" else told.advantages
    triggered = active & (signal < 0)
    moved = torch.where(triggered, -signal, 0.0)
    empty = route.empty & triggered
    components = dict(told.components)
    if routing.magnitude == "log_ratio":
        # Where |r| is what is moved, |r| is also what is taken away, whatever the credit says.
        components = silence(components, triggered)
        components["transfer"] = -moved
    terms: tuple[DivergenceTerm, ...] = ()
    if routing.fallback in ("abstain", "forward_kl"):
        components = silence(components, empty)
    elif routing.fallback == "down_weight":
        components = {
            name: torch.where(empty, routing.fallback_weight * part, part) for name, part in components.items()
        }
    if routing.fallback == "forward_kl":
        terms = (favourites_term(feedback, routing.teacher_top_k, empty, routing.fallback_weight),)
    return Draft(
        components,
        (SparseForce(route.ids, routing.strength * moved[:, None] * route.weights),),
        terms,
        {"route_triggered": share(triggered, torch.ones_like(triggered)), "route_empty": share(empty, triggered)},
    )


def _aopd(routing: AopdRouting, feedback: Feedback, told: Suppression) -> Draft:
    fires = _deficit(feedback) <= -routing.margin
    components = silence(told.components, fires)
    statistics = {"route_triggered": share(fires, torch.ones_like(fires))}
    if routing.form == "tail":
        return Draft(components, (), (favourites_term(feedback, routing.k, fires, routing.weight),), statistics)
    top = feedback.candidates(routing.k).teacher
    pull = routing.weight * fires[:, None] * top.teacher_logp.exp() / top.ids.shape[1]
    return Draft(components, (SparseForce(top.ids, pull),), (), statistics)


def _apo(routing: ApoRouting, feedback: Feedback, told: Suppression) -> Draft:
    sampled = feedback.tokens[feedback.mask]
    if routing.anchor == "teacher":
        top = feedback.candidates(routing.k + 1).teacher
        ids, anchor_logp, own_logp = top.ids, top.teacher_logp, top.student_logp
    else:
        ids, anchor_logp, own_logp = _reference_top(routing, feedback)
    others = ids != sampled[:, None]
    others &= others.cumsum(1) <= routing.k  # exclusive anchoring: the sampled token is not its own anchor
    anchor = (anchor_logp.exp() * others).sum(1, keepdim=True)
    suppressed = told.advantages < 0
    pull = torch.where(suppressed, -routing.pull * told.advantages, 0.0)[:, None]
    weights = pull * own_logp.exp() * others / anchor.clamp(min=torch.finfo(anchor.dtype).tiny)
    components = {name: torch.where(suppressed, routing.push * part, part) for name, part in told.components.items()}
    statistics = {"route_triggered": share(suppressed, torch.ones_like(suppressed))}
    return Draft(components, (SparseForce(ids, weights),), (), statistics)


def _reference_top(routing: ApoRouting, feedback: Feedback) -> tuple[Tensor, Tensor, Tensor]:
    """The reference's k + 1 favourites: ids, its and the student's log-probabilities, each [N, K]."""
    reference = require(feedback.context.reference, "the student at the start of the run", "routing.anchor 'reference'")
    kelvin = feedback.context.temperature
    parts = []
    for rows in row_chunks(feedback.student):
        theirs = reference[rows].log_probs(kelvin)
        top = theirs.topk(min(routing.k + 1, theirs.shape[1]))
        parts.append((top.indices, top.values, feedback.student[rows].log_probs(kelvin).gather(1, top.indices)))
    if not parts:
        nothing = feedback.log_ratio.new_zeros((0, 1))
        return nothing.long(), nothing, nothing
    ids, logp, own = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return ids, logp, own


def _outlier(routing: OutlierRouting, feedback: Feedback, told: Suppression) -> Draft:
    out = outliers(routing, feedback)
    statistics = {"route_triggered": share(out, torch.ones_like(out))}
    if routing.handling == "clip":  # the signal was clipped before it became credit
        return Draft(dict(told.components), statistics=statistics)
    components = silence(told.components, out)
    if routing.handling == "mask":
        return Draft(components, statistics=statistics)
    return Draft(components, (), (favourites_term(feedback, routing.k, out, routing.weight),), statistics)


def outliers(routing: OutlierRouting, feedback: Feedback) -> Tensor:
    """[N] bool: tokens with p / pi below the trust."""
    return feedback.log_ratio[feedback.mask] < math.log(routing.trust)


def favourites_term(feedback: Feedback, k: int, where: Tensor, weight: float) -> DivergenceTerm:
    """weight x forward KL on the teacher's k favourites and a bucket for the rest, on the rows ``where`` [N] bool."""
    top = feedback.candidates(k).teacher
    return DivergenceTerm(
        "forward_kl",
        weight * where.to(feedback.log_ratio.dtype),
        feedback.teacher,
        tokens=TokenSet(top.ids, torch.ones_like(top.ids, dtype=torch.bool)),
        target_temperature=feedback.context.effective_teacher_temperature,
    )


def silence(components: Mapping[str, Tensor], where: Tensor) -> dict[str, Tensor]:
    """The components with 0 at ``where`` [N]."""
    return {name: torch.where(where, 0.0, part) for name, part in components.items()}


def _deficit(feedback: Feedback) -> Tensor:
    """[N] p(y) - pi(y)."""
    mask = feedback.mask
    return feedback.teacher_logp[mask].exp() - feedback.student_logp[mask].exp()
