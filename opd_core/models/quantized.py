"""Weights in 8 or 4 bits, through bitsandbytes: of models that take no gradients, or only those of an adapter.

LLM.int8 looks for its outliers in all rows of a pass: what it says of a row changes a little with the rows beside it.
NF4 rounds weights alone and has no such noise.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from torch import nn

from opd_core.spec import UserError
from opd_core.spec.model import Quantization


def packed(
    quantization: Quantization, device: torch.device | str, compute: torch.dtype, *, param: str
) -> dict[str, Any]:
    """What ``from_pretrained`` is told besides. The head is left alone by transformers, and so is the embedding.

    Raises UserError (``param``) where bitsandbytes is missing.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"{param}: '{quantization}' needs bitsandbytes, which is not installed where this job runs: "
            "pip install 'opd[quantization]' there, or choose 'none'",
            param=param,
            code="not_installed",
        )
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of a cast in every layer of every pass
    if quantization == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    where = torch.device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    return {"quantization_config": config, "device_map": {"": where}}


def is_quantized(model: nn.Module) -> bool:
    """Whether some of its parameters are codes."""
    return not all(map(torch.is_floating_point, model.parameters()))
