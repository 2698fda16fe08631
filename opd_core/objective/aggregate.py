"""From per-token losses to one number: loss = sum(weights x token loss) / normalizer.

token: every token weighs the same. sequence: every sequence weighs the same, whatever its length. constant: sum over
all tokens / (sequences x constant), so that a long answer never dilutes its own penalty. The counts are those of the
whole step, over all ranks and micro-batches, and of the action mask alone: gates are no part of it, unless the
denominator is ``gate_mass``, their sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.spec.variables.aggregation import Aggregation


def aggregation_weights(
    aggregation: Aggregation, mask: Tensor, gates: Tensor, from_data: Tensor | None = None
) -> tuple[Tensor, float]:
    """(weights [N], normalizer). mask [B, T] bool, gates [B, T] >= 0, from_data [B] bool.

    With ``by_origin`` rows from data are normalised by themselves, to the same total as the student's own rows. An
    empty step has normalizer 1 and loss 0.
    """
    counted = mask.to(gates.dtype) if aggregation.denominator == "actions" else gates * mask
    groups = [torch.ones_like(mask[:, 0])] if mask.shape[1] else []
    if groups and aggregation.by_origin and from_data is not None and bool(from_data.any()):
        groups = [~from_data.bool(), from_data.bool()]
    weights = torch.zeros_like(gates)
    for rows in groups:
        weights += torch.where(rows[:, None], _within(aggregation, mask & rows[:, None], counted), 0.0)
    # Kept as counts over a normalizer, so that one group of tokens gives weights of exactly 1.
    normalizer = float(_total(aggregation, mask, counted))
    return weights[mask] * normalizer if len(groups) > 1 else _plain(aggregation, mask, counted)[mask], normalizer


def _within(aggregation: Aggregation, mask: Tensor, counted: Tensor) -> Tensor:
    """Weights [B, T] of the rows of ``mask`` that sum to one loss."""
    return _plain(aggregation, mask, counted) / _total(aggregation, mask, counted)


def _plain(aggregation: Aggregation, mask: Tensor, counted: Tensor) -> Tensor:
    ones = mask.to(counted.dtype)
    if aggregation.per != "sequence":
        return ones
    length = (counted * mask).sum(1, keepdim=True)
    return torch.where(length > 0, ones / length.clamp(min=torch.finfo(counted.dtype).tiny), 0.0)


def _total(aggregation: Aggregation, mask: Tensor, counted: Tensor) -> float:
    sequences = int(mask.any(1).sum()) if mask.shape[1] else 0
    if aggregation.per == "token":
        total = float((counted * mask).sum())
    elif aggregation.per == "sequence":
        total = float(sequences)
    else:
        total = sequences * aggregation.constant
    return total if total > 0 else 1.0
