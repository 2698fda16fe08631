"""A model that reads a batch token by token."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from opd_core.models import LanguageModel, position_ids


class Decoder(Protocol):
    """Next-token logits of the rows that still write."""

    def logits(self) -> Tensor:
        """[rows, V] of the next token."""
        ...

    def append(self, chosen: Tensor) -> None:
        """Go on after these tokens [rows]."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Only the rows at these indices go on."""
        ...


class GrowingDecoder:
    """With a key-value cache that grows by each token and holds only the rows that still write."""

    def __init__(self, lm: LanguageModel, ids: Tensor, prompt_mask: Tensor) -> None:
        self._lm = lm
        self._attention, self._positions = prompt_mask.long(), position_ids(prompt_mask)
        self._inputs = ids
        self._cache: Any = None

    def logits(self) -> Tensor:
        output = self._lm.trunk(
            input_ids=self._inputs,
            attention_mask=self._attention,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        return self._lm.head(output.last_hidden_state[:, -1])

    def append(self, chosen: Tensor) -> None:
        self._attention = torch.cat([self._attention, self._attention.new_ones((len(chosen), 1))], 1)
        self._positions = self._positions[:, -1:] + 1
        self._inputs = chosen[:, None]

    def keep(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)
        self._attention, self._positions = self._attention[rows], self._positions[rows]
        self._inputs = self._inputs[rows]
