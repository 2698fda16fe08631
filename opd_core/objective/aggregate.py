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

    With ``by_origin`` rows from data and the student's own are two losses, each with its own normalizer, that add up.
    An empty step has normalizer 1 and loss 0.
    """
    counted = mask.to(gates.dtype) if aggregation.denominator == "actions" else gates * mask
    weights = mask.to(gates.dtype)
    if aggregation.per == "sequence":
        length = counted.sum(1, keepdim=True)
        weights = torch.where(length > 0, weights / length.clamp(min=torch.finfo(gates.dtype).tiny), 0.0)
    if not (aggregation.by_origin and from_data is not None and bool(from_data.any())):
        return weights[mask], _normalizer(aggregation, mask, counted)
    golden = from_data.bool()[:, None]
    own, data = (_normalizer(aggregation, mask & rows, counted * rows) for rows in (~golden, golden))
    # One normalizer for the plan: the other origin's is folded into its weights.
    return torch.where(golden, weights * (own / data), weights)[mask], own


def aggregation_of_heard(
    aggregation: Aggregation,
    mask: Tensor,
    heard: Tensor,
    gates: Tensor,
    from_data: Tensor | None = None,
    *,
    of_all: tuple[Tensor, float],
) -> tuple[Tensor, float, Tensor]:
    """(weights [N], normalizer, others [N]): the tokens ``heard`` [B, T] are a loss with counts of their own.

    ``of_all`` is what ``aggregation_weights`` gives for all tokens. Forces that act on all of them are multiplied by
    ``others``: that gives them back these counts.
    """
    whole, count = of_all
    own, own_count = aggregation_weights(aggregation, mask & heard, gates * heard, from_data)
    weights = whole * (own_count / count)
    others = torch.ones_like(weights)
    here = heard[mask]
    others[here] = torch.where(own > 0, weights[here] / own, 0.0)
    weights[here] = own
    return weights, own_count, others


def _normalizer(aggregation: Aggregation, mask: Tensor, counted: Tensor) -> float:
    sequences = int(mask.any(1).sum())
    totals = {
        "token": float(counted.sum()),
        "sequence": float(sequences),
        "constant": sequences * aggregation.constant,
    }
    return totals[aggregation.per] or 1.0
