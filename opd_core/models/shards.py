"""Weights of which each of several processes holds a part (torch's DTensor), as a whole and from a whole.

What is not such a part is passed through, so that nobody else has to know. All processes have to make the same calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from opd_core.models.language_model import LanguageModel


def is_shard(held: Tensor) -> bool:
    """Asked without the import of torch.distributed.tensor, which takes a second that few jobs need."""
    return hasattr(held, "full_tensor")


def whole(held: Any) -> Tensor:
    """The whole tensor, of which the processes have a part each."""
    tensor: Tensor = held.full_tensor() if is_shard(held) else held
    return tensor


def part(value: Tensor, like: Any) -> Tensor:
    """Of a whole tensor what belongs beside ``like``: on its device, and if that is a part, the same part."""
    value = value.to(like.device)
    if not is_shard(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)  # each cuts its own


@torch.no_grad()
def assign(held: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into ``held`` in place."""
    held.copy_(part(value, held))


@torch.no_grad()
def copy_weights(source: LanguageModel, target: LanguageModel) -> None:
    """What is trained of ``source``, part by part or whole, becomes that of ``target``, a whole model of its kind."""
    own = dict(target.model.named_parameters())
    for name, value in source.model.named_parameters():
        if value.requires_grad:
            own[name].copy_(whole(value.detach()))
