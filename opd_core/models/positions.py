"""Position ids that count real tokens, so that left padding shifts nothing."""

from __future__ import annotations

from torch import Tensor


def position_ids(attention_mask: Tensor) -> Tensor:
    """[B, T] mask (1 = real token) -> [B, T] int64 positions: 0 for the first real token of each row.

    Padding gets position 0 too; it is masked out of the attention and its value does not matter.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
