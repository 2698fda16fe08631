"""Compute precision of models that take no gradients."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from opd_core.models.head import split_head
from opd_core.models.language_model import LanguageModel
from opd_core.models.trunk import Trunk, base_model


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters, and only those.

    ``model.to(dtype)`` would cast buffers as well, the frequencies of rotary embeddings among them: in bfloat16 they
    are off by up to 0.4 %, which at position 1,000 is a whole turn of the fastest pair.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def frozen_copy(lm: LanguageModel, dtype: torch.dtype) -> LanguageModel:
    """A model of its own with the same weights in ``dtype``, without gradients."""
    model = copy.deepcopy(lm.model)
    model.requires_grad_(False)
    cast_parameters(model, dtype)
    base = base_model(model)
    assert base is not None  # the one it was copied from has one
    return replace(lm, model=model, trunk=Trunk(base), head=split_head(model, vocab_size=lm.vocab_size))
