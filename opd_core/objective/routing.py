"""Vocabulary routing: where a suppressed token's mass should go.

Softmax by itself spreads it in proportion to pi_v (pi_v + pi_y - ||pi||^2), towards what the student already likes,
whatever the teacher thinks. CR-OPD (proposed, untested, in arXiv 2606.22793; this formulation is ours) names the
destination: alternatives that the teacher supports, the student can reach, and the teacher likes better than the
student does. At strength 1 the force on the logits is then exactly magnitude x (rho - e_y).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.spec.method import Weighting


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
) -> Route:
    """The counterfactual route of each row; log-probabilities [N, V], sampled ids [N] -> K = min(teacher_top_k, V).

    Candidates are the tokens v != y in both models' top-k with r(v) = log p(v) - log pi(v) > 0. Weights before
    normalisation: teacher p(v), deficit p(v) - pi(v), geometric sqrt(p(v) pi(v)).
    """
    vocabulary = student_logp.shape[1]
    ids = teacher_logp.topk(min(teacher_top_k, vocabulary)).indices
    reachable = student_logp.topk(min(student_top_k, vocabulary)).indices
    ours, theirs = student_logp.gather(1, ids), teacher_logp.gather(1, ids)
    # The sampled token of an active row has r(y) < 0, so r(v) > 0 leaves it out.
    qualifies = (ids[:, :, None] == reachable[:, None, :]).any(2) & (theirs > ours)
    own = sampled[:, None]
    active = (teacher_logp.gather(1, own) < student_logp.gather(1, own))[:, 0]
    raw = {
        "teacher": lambda: theirs.exp(),
        "deficit": lambda: theirs.exp() - ours.exp(),
        "geometric": lambda: ((theirs + ours) / 2).exp(),
    }[weighting]()
    raw = torch.where(qualifies & active[:, None], raw, 0.0)
    total = raw.sum(1, keepdim=True)
    weights = torch.where(total > 0, raw / total.clamp(min=torch.finfo(raw.dtype).tiny), 0.0)
    return Route(ids, weights, active)
