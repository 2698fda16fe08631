"""Dropout off, everywhere: teacher scores, rollouts and losses must see the same, noise-free function."""

from __future__ import annotations

import re

from torch import nn
from transformers import PreTrainedConfig

_DROPOUT = re.compile("dropout|pdrop|layerdrop")


def silence_config(config: PreTrainedConfig) -> None:
    """Set every dropout rate in a configuration (and in the configurations inside it) to 0.

    Router jitter stays as it is: it fires in training mode only, which is never entered, and PhiMoE reads the same
    field as a routing threshold.
    """
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            silence_config(value)
        elif _DROPOUT.search(name) and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, type(value)(0))


def silence_modules(model: nn.Module) -> None:
    """Set every dropout module to 0 and the model to evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    model.eval()
