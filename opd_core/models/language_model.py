"""A loaded model, as the rest of the trainer sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn
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
        total = sum(parameter.numel() for parameter in self.model.parameters())
        return total if tied else total - sum(parameter.numel() for parameter in embedding.parameters())

    def restrict_vocabulary(self, size: int) -> None:
        """Use only the first ``size`` token ids from here on."""
        self.vocab_size = size
        self.head.vocab_size = size
        self.eos_ids = tuple(token for token in self.eos_ids if token < size)
