"""A loaded model, as the rest of the trainer sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from opd_core.models.head import Head

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass
class LanguageModel:
    """A causal language model split into trunk (ids -> hidden states) and head (hidden states -> logits).

    ``model`` owns the parameters; ``trunk`` and ``head`` are views of it. ``vocab_size`` V counts the token ids that
    exist for both the tokenizer and (after ``check_vocabularies``) the other model; embedding rows beyond V are
    padding and take part in nothing. ``eos_ids`` are all ids that end a completion. ``name`` is what the spec called
    the model; ``revision`` is the commit of a hub model, else None. With an ``adapter`` (lora.py) only that is trained.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    trunk: nn.Module
    head: Head
    vocab_size: int
    eos_ids: tuple[int, ...]
    pad_id: int
    name: str
    revision: str | None
    adapter: LoraConfig | None = None

    @property
    def flop_parameters(self) -> int:
        """Parameters that multiply each token: all but an input embedding, unless it is the head too."""
        embedding = self.model.get_input_embeddings()
        tied = isinstance(embedding, nn.Embedding) and embedding.weight is self.head.weight
        total = count_weights(self.model)
        return total if tied else total - count_weights(embedding)

    def restrict_vocabulary(self, size: int) -> None:
        """Use only the first ``size`` token ids from here on."""
        self.vocab_size = size
        self.head.vocab_size = size
        self.eos_ids = tuple(token for token in self.eos_ids if token < size)


def count_weights(module: nn.Module) -> int:
    """Its parameters, each counted once, also where several of them are packed into one number (quantized.py)."""

    def size(parameter: Tensor) -> int:
        packed = getattr(parameter, "quant_state", None)
        return parameter.numel() if packed is None else math.prod(packed.shape)

    return sum(map(size, module.parameters()))
