"""Writing with a key-value cache of fixed size, so that a GPU replays one recorded step for every token.

Token by token a model is a thousand tiny kernels, and starting them takes longer than running them. With a cache whose
address and shape never change, the step is recorded once (a CUDA graph) and replayed as one launch. Elsewhere the same
code runs the step as it is: slower than a growing cache, and there to be tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import StaticCache, StaticLayer

from opd_core.models import LanguageModel, frozen_copy, position_ids

_WIDTHS = 32  # prompts are padded to a multiple of it, so that few shapes have to be recorded
_WARM_UP = 2
_GROWING_ROPE = ("dynamic", "longrope")


class FixedEngine:
    """Writes for one student, with weights of ``dtype``: its own where they are that, else a copy that follows it.

    The recording of the last shape (rows x prompt width x new tokens) is kept, with its cache.
    """

    def __init__(self, student: LanguageModel, dtype: torch.dtype) -> None:
        self._student = student
        self._writer = student if student.head.weight.dtype == dtype else frozen_copy(student, dtype)
        self._recorded: _Recording | None = None

    @staticmethod
    def supports(student: LanguageModel) -> bool:
        """Whether the family can decode from a cache of plain, fixed-size layers."""
        config = student.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or {}
        # Frequencies that depend on how long the sequence has become are computed outside any recording.
        if not getattr(student.model, "_can_compile_fullgraph", False) or rope.get("rope_type") in _GROWING_ROPE:
            return False
        layers = StaticCache(config=student.model.config, max_cache_len=1).layers
        return all(type(layer) is StaticLayer for layer in layers)

    @torch.no_grad()
    def begin(self, ids: Tensor, prompt_mask: Tensor, max_new_tokens: int) -> FixedDecoder:
        """A decoder of these prompts: ids [B, P] left-padded, mask [B, P]. The one before it is spent."""
        if self._writer is not self._student:
            torch._foreach_copy_(list(self._writer.model.parameters()), list(self._student.model.parameters()))
        self._writer.restrict_vocabulary(self._student.vocab_size)
        missing = -ids.shape[1] % _WIDTHS
        ids = torch.nn.functional.pad(ids, (missing, 0), value=self._student.pad_id)
        prompt_mask = torch.nn.functional.pad(prompt_mask, (missing, 0), value=False)
        shape = (*ids.shape, max_new_tokens)
        if self._recorded is None or self._recorded.shape != shape:
            self._recorded = None  # its cache goes before the next one comes
            self._recorded = _Recording(self._writer, shape, ids.device)
        return FixedDecoder(self._recorded, self._recorded.read(ids, prompt_mask))


class FixedDecoder:
    """The cache keeps its size: rows that are done go on being computed, and are not looked at."""

    def __init__(self, recorded: _Recording, first: Tensor) -> None:
        self._recorded, self._logits = recorded, first
        self._rows = torch.arange(len(first), device=first.device)

    def logits(self) -> Tensor:
        """[rows, V] of the next token."""
        return self._logits

    def append(self, chosen: Tensor) -> None:
        """Go on after these tokens [rows]."""
        self._recorded.ids[self._rows, 0] = chosen
        logits = self._recorded.step()
        self._logits = logits if len(self._rows) == len(logits) else logits[self._rows]

    def keep(self, rows: Tensor) -> None:
        """Only the rows at these indices go on."""
        self._rows, self._logits = self._rows[rows], self._logits[rows]


class _Recording:
    """Inputs, cache and output of one decoding step at fixed addresses."""

    def __init__(self, lm: LanguageModel, shape: tuple[int, int, int], device: torch.device) -> None:
        self.shape = shape
        rows, width, new = shape
        self._lm = lm
        self._cache = StaticCache(config=lm.model.config, max_cache_len=width + new)
        self.ids = torch.full((rows, 1), lm.pad_id, device=device)
        self._positions = torch.zeros((rows, 1), dtype=torch.long, device=device)
        # What has not been written yet is behind the causal mask; only the padding before a prompt has to be told.
        self._attention = torch.ones((rows, width + new), dtype=torch.bool, device=device)
        self._graph: Any = None
        self._logits: Tensor | None = None

    def read(self, ids: Tensor, prompt_mask: Tensor) -> Tensor:
        """Start over with these prompts; logits [rows, V] of the first token."""
        width = ids.shape[1]
        self._attention[:, :width] = prompt_mask
        if self._graph is None and ids.device.type == "cuda":
            self._record(ids)
        self._cache.reset()
        positions = position_ids(prompt_mask)
        self._positions.copy_(positions[:, -1:])
        return self._forward(ids, positions)

    def step(self) -> Tensor:
        """Read ``ids``; logits [rows, V] of the next token, overwritten by the next call."""
        if self._graph is None:
            return self._decode()
        self._graph.replay()
        assert self._logits is not None
        return self._logits

    def _decode(self) -> Tensor:
        self._positions.add_(1)
        return self._forward(self.ids, self._positions)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        with _plain(ids.device):
            output = self._lm.trunk(
                input_ids=ids,
                attention_mask=self._attention,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
            )
            return self._lm.head(output.last_hidden_state[:, -1])

    def _record(self, ids: Tensor) -> None:
        """The cache takes its room at the first prompt; libraries take theirs in some steps beside the main stream."""
        self._forward(ids, position_ids(self._attention[:, : ids.shape[1]]))
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(min(_WARM_UP, self.shape[2])):
                self._decode()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self._decode()
        self._graph = graph


@contextmanager
def _plain(device: torch.device) -> Iterator[None]:
    """No casts at every token: the weights are what is computed with. No sorted copies either: no index is there twice,
    so that the quick kernel is deterministic too.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
