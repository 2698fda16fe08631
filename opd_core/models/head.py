"""The head: hidden states -> logits, with whatever a family does to its logits afterwards.

logits = cap * tanh(scale * (W h + b) / cap), or scale * (W h + b) where there is no cap. Families that do something
else are recognised by ``check_trunk_and_head`` and refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from opd_core.objective.targets import aligned

# Configuration fields that scale logits: Granite and MiniCPM3 divide by logits_scaling, HyperCLOVA X multiplies.
_MULTIPLIES_BY_LOGITS_SCALING = frozenset({"hyperclovax"})
_SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


class Head(nn.Module):
    """Output projection, logit scale and final soft-cap.

    ``weight`` [rows, H] and ``bias`` [rows] (or None) are the model's own parameters, possibly tied to its input
    embedding; rows >= ``vocab_size`` are padding of the embedding and never used. ``rows()`` gives the cut views.
    """

    def __init__(
        self,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        *,
        vocab_size: int,
        scale: float = 1.0,
        soft_cap: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.vocab_size = vocab_size
        self.scale = scale
        self.soft_cap = soft_cap

    def rows(self) -> tuple[Tensor, Tensor | None]:
        """Weight [V, H] and bias [V] (or None) of the token ids that exist: views of the parameters, or all of them.

        The backward of a view fills a tensor of its whole base.
        """
        if self.vocab_size == self.weight.shape[0]:
            return self.weight, self.bias
        bias = None if self.bias is None else self.bias[: self.vocab_size]
        return self.weight[: self.vocab_size], bias

    def transform(self, raw_logits: Tensor) -> Tensor:
        """Raw projections [..., V] -> logits [..., V] in float32: scale, then soft-cap."""
        logits = raw_logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.soft_cap is not None:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., H] -> logits [..., V], float32."""
        weight, bias = self.rows()
        wide = aligned(self.weight, self.vocab_size)
        if len(wide) == self.vocab_size:
            return self.transform(nn.functional.linear(hidden, weight, bias))
        raw = nn.functional.linear(hidden, wide)[..., : self.vocab_size]
        return self.transform(raw if bias is None else raw + bias)


def split_head(model: PreTrainedModel, *, vocab_size: int) -> Head:
    """The head of a causal language model whose output layer is one linear projection."""
    projection = model.get_output_embeddings()
    return Head(
        projection.weight,
        projection.bias,
        vocab_size=vocab_size,
        scale=logit_scale(model),
        soft_cap=soft_cap(model),
    )


def logit_scale(model: PreTrainedModel) -> float:
    """The factor on the raw logits, from the fields that the known families use."""
    config = model.config.get_text_config()
    scale = 1.0
    if isinstance(getattr(model, "logit_scale", None), int | float):  # Cohere keeps it on the model
        scale *= model.logit_scale
    if (scaling := getattr(config, "logits_scaling", None)) is not None:
        scale *= scaling if config.model_type in _MULTIPLIES_BY_LOGITS_SCALING else 1.0 / scaling
    if (width := getattr(config, "logits_mup_width_multiplier", None)) is not None:  # Inkling
        scale /= width
    if (multiplier := getattr(config, "lm_head_multiplier", None)) is not None:  # Falcon-H1
        scale *= multiplier
    return float(scale)


def soft_cap(model: PreTrainedModel) -> float | None:
    """The cap of a final ``cap * tanh(logits / cap)`` (Gemma 2 and 3, NanoChat, RecurrentGemma, xLSTM)."""
    config = model.config.get_text_config()
    for field in _SOFT_CAPS:
        if (cap := getattr(config, field, None)) is not None:
            return float(cap)
    return None
