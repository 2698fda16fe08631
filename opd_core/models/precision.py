"""Compute precision of models that take no gradients."""

from __future__ import annotations

import torch
from torch import nn


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters, and only those.

    ``model.to(dtype)`` would cast buffers as well, the frequencies of rotary embeddings among them: in bfloat16 they
    are off by up to 0.4 %, which at position 1,000 is a whole turn of the fastest pair.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
