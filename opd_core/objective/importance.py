"""Importance weights: a sampled-token update is an expectation over y ~ pi, but rollouts come from mu.

With rho_t = pi(y_t) / mu(y_t), detached:

    truncated  min(rho, cap)
    icepop     rho inside [low, cap], else 0 (as in MiMo-V2-Flash and NeMo-RL)
    ppo        rho, and 0 where the update would take it further out of [1 - low, 1 + high] (Schulman et al., arXiv
               1707.06347): with A > 0 above 1 + high, with A < 0 below 1 - low. The plan is built at the weights that
               take the gradient, so this is the gradient of the clipped surrogate

mu differs from pi when sampling is tempered or cut (top-p), or when the student has moved since. Tokens that top-p
never lets through have no sample to weight: that loss of support cannot be corrected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.objective.draft import share
from opd_core.objective.feedback import Feedback
from opd_core.spec.variables.importance import Importance


def importance_weights(
    importance: Importance, feedback: Feedback, coefficients: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """(weights [N], statistics) for updates with these ``coefficients`` [N] on log pi(y).

    Weight 1 where sampling was on-policy by contract (no ``behaviour_logp``).
    """
    behaviour_logp = feedback.context.behaviour_logp
    everything = torch.ones_like(coefficients, dtype=torch.bool)
    if importance.kind == "none" or behaviour_logp is None:
        return torch.ones_like(coefficients), {"importance_truncated": 0.0}
    ratio = (feedback.student_logp - behaviour_logp)[feedback.mask].exp()
    match importance.kind:
        case "truncated":
            beyond = ratio > importance.cap
            weights = ratio.clamp(max=importance.cap)
        case "icepop":
            beyond = (ratio > importance.cap) | (ratio < importance.low)
            weights = torch.where(beyond, 0.0, ratio)
        case "ppo":
            beyond = ((coefficients > 0) & (ratio > 1.0 + importance.high)) | (
                (coefficients < 0) & (ratio < 1.0 - importance.low)
            )
            weights = torch.where(beyond, 0.0, ratio)
    return weights, {
        "importance_truncated": share(beyond, everything),
        "importance_mean": float(ratio.mean()) if len(ratio) else 1.0,
    }
