"""The trunk compiled by TorchInductor, for the passes of training: the same weights, shapes that change every step."""

from __future__ import annotations

import torch
from torch import nn

from opd_core.models.check import TOLERANCE, left_padded_batch
from opd_core.models.language_model import LanguageModel
from opd_core.models.positions import position_ids
from opd_core.spec import UserError


def compiled_trunk(lm: LanguageModel) -> nn.Module:
    """``lm.trunk`` compiled, on the same parameters; its first pass is compared with the trunk's own.

    UserError (param student.compile) where there is no compiler, or none that computes what the model does.
    """
    trunk = torch.compile(lm.trunk, dynamic=True)
    ids, mask = left_padded_batch(lm)
    positions = position_ids(mask)
    try:
        torch.compile(lambda numbers: numbers + 1)(positions)  # without a compiler there is no need to trace a model
        found = trunk(ids, mask, positions).last_hidden_state.detach()
    except RuntimeError as error:  # what dynamo and inductor raise are such
        raise _refused(
            f"'{lm.name}' ({lm.model.config.model_type}) cannot be compiled here ({_reason(error)}): a CPU takes a C++ "
            "compiler (g++), a GPU a C compiler and triton; or leave it at false"
        ) from error
    with torch.no_grad():
        own = lm.trunk(ids, mask, positions).last_hidden_state
    real = mask.bool()
    size = float(own[real].abs().max())
    # In bfloat16 a fused kernel rounds less often than one operation after the other.
    coarse = own.dtype != torch.float32 or torch.is_autocast_enabled(own.device.type)
    tolerance = 8 * torch.finfo(torch.bfloat16).eps * size if coarse else TOLERANCE * max(1.0, size)
    difference = float((found[real] - own[real]).abs().max())
    if not difference <= tolerance:
        raise _refused(
            f"'{lm.name}' ({lm.model.config.model_type}) computes something else when compiled (hidden states of "
            f"{size:.2g} differ by {difference:.2g}); leave it at false"
        )
    return trunk


def _refused(reason: str) -> UserError:
    return UserError(f"student.compile: true: {reason}", param="student.compile", code="cannot_compile")


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".:")
