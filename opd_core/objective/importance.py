"""Importance weights: the log-ratio route's expectation is over y ~ pi, but rollouts come from mu.

w_t = min(sg(pi(y_t) / mu(y_t)), cap), truncated importance sampling per token. mu differs from pi when sampling is
tempered or cut (top-p), or when the student has moved since. Tokens that top-p never lets through have no sample to
weight: that loss of support cannot be corrected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.objective.feedback import Feedback
from opd_core.spec import Importance


def importance_weights(importance: Importance, feedback: Feedback) -> tuple[Tensor, Tensor]:
    """(weights [B, T], truncated [B, T] bool); weight 0 off the mask, 1 where sampling was on-policy by contract."""
    behaviour_logp = feedback.context.behaviour_logp
    none_truncated = torch.zeros_like(feedback.mask)
    if importance.kind == "none" or behaviour_logp is None:
        return feedback.mask.to(feedback.log_ratio.dtype), none_truncated
    ratio = (feedback.student_logp - behaviour_logp).exp()
    truncated = (ratio > importance.cap) & feedback.mask
    return ratio.clamp(max=importance.cap) * feedback.mask, truncated
