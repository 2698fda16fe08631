"""The critic's own loss: how far its values are from what the plan says they should have been."""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.objective.credit import CriticTargets


def critic_loss(targets: CriticTargets, values: Tensor, normalizer: float) -> Tensor:
    """loss_weight x sum of weighted Huber losses of (values - targets) / scale, over ``normalizer``; a scalar.

    values [N] are live. ``normalizer`` is the step's own (all tokens of all ranks), so that micro-batches add up.
    """
    residual = (values - targets.values.to(values.dtype)) / targets.scale
    losses = torch.nn.functional.huber_loss(residual, torch.zeros_like(residual), delta=targets.huber, reduction="none")
    return targets.loss_weight * (losses * targets.weights).sum() / normalizer
