"""Activations that are computed again in the backward pass instead of being kept (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def can_recompute(model: nn.Module) -> bool:
    """Whether the family's layers know how."""
    return any(isinstance(module, GradientCheckpointingLayer) for module in model.modules())


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Forward passes in here keep the inputs of each layer only. Nothing else about them changes.

    Only in here: a layer that would be computed twice cannot fill a key-value cache, so writing must not see this.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    # Layers ask whether they are training; what is inside them (dropout, router noise) stays in evaluation mode.
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    for layer in layers:
        layer._gradient_checkpointing_func = again  # type: ignore[assignment]
        layer.gradient_checkpointing = layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False
