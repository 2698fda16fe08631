"""Rows of log-probabilities over the vocabulary that can be cut into chunks before they are computed.

A target never holds [N, V] unless it was given that: hidden states with a head are projected chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Target(Protocol):
    """N distributions over the vocabulary."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Tensor) -> Target: ...

    def log_probs(self, temperature: float) -> Tensor:
        """Log-probabilities [N, V] at that softmax temperature, float32 or float64, without gradient."""
        ...


@dataclass(frozen=True)
class DenseTarget:
    """Logits [N, V], as tests and the laboratory have them."""

    logits: Tensor

    def __len__(self) -> int:
        return self.logits.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> DenseTarget:
        return DenseTarget(self.logits[rows])

    def log_probs(self, temperature: float) -> Tensor:
        return log_softmax(self.logits.detach(), temperature)


@dataclass(frozen=True)
class HiddenTarget:
    """Last hidden states [N, H] and the head that turns them into logits [N, V]."""

    hidden: Tensor
    head: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return self.hidden.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> HiddenTarget:
        return HiddenTarget(self.hidden[rows], self.head)

    @torch.no_grad()
    def log_probs(self, temperature: float) -> Tensor:
        return log_softmax(self.head(self.hidden), temperature)


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Log-softmax over the last axis in at least float32: bfloat16 would quantise the differences we live on."""
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    return logits.log_softmax(-1)


def chunks(rows: int, vocabulary: int, *, budget: int = 2**22) -> list[slice]:
    """Slices of [0, rows) that keep rows x vocabulary of one slice near ``budget`` elements (16 MiB of float32)."""
    size = max(1, budget // max(1, vocabulary))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
