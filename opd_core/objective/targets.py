"""Rows of log-probabilities over the vocabulary that can be cut into chunks before they are computed.

A target never holds [N, V] unless it was given that: hidden states with a head are projected chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

# Elements of one chunk: 16 MiB of float32 stay in a CPU's caches. A GPU that gets less than 256 MiB at a time waits for
# the next kernel, and reads the whole head for a few dozen rows.
_CPU_BUDGET = 2**22
_CUDA_BUDGET = 2**26
_ALIGNMENT = 8


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


@dataclass(frozen=True)
class GeometricTarget:
    """q ~ product of distributions to the powers of their weights, normalised: a path between or beyond models.

    ``parts`` are (weight, target, temperature). The temperatures are inside, so its own is always 1.
    """

    parts: tuple[tuple[float, Target, float], ...]

    def __len__(self) -> int:
        return len(self.parts[0][1])

    def __getitem__(self, rows: slice | Tensor) -> GeometricTarget:
        return GeometricTarget(tuple((weight, target[rows], kelvin) for weight, target, kelvin in self.parts))

    def log_probs(self, temperature: float) -> Tensor:
        if temperature != 1.0:
            raise ValueError(
                f"the parts of a geometric target have their temperatures already (asked for {temperature})"
            )
        total, ruled_out = None, None
        for weight, target, kelvin in self.parts:
            logp = target.log_probs(kelvin)
            impossible = logp == -torch.inf
            # A negative power of nothing would be infinite: what any part rules out stays ruled out.
            part = weight * logp
            total = part if total is None else total + part
            ruled_out = impossible if ruled_out is None else ruled_out | impossible
        assert total is not None
        assert ruled_out is not None
        return total.masked_fill(ruled_out, -torch.inf).log_softmax(-1)


@dataclass(frozen=True)
class SparseTarget:
    """N distributions over V tokens, known on up to M of them; what is left of the mass is even over the others.

    Holds [N, M]; a row of V is made when it is looked at. ``keep`` is False where an id of a row is listed again.
    """

    ids: Tensor  # [N, M]
    logp: Tensor  # [N, M]; -inf where an id is listed again
    keep: Tensor  # [N, M] bool
    vocabulary: int
    temperature: float  # of the softmax that they were told at

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> SparseTarget:
        return replace(self, ids=self.ids[rows], logp=self.logp[rows], keep=self.keep[rows])

    def to(self, device: torch.device) -> SparseTarget:
        """The same on another device."""
        return replace(self, ids=self.ids.to(device), logp=self.logp.to(device), keep=self.keep.to(device))

    def log_probs(self, temperature: float) -> Tensor:
        known = self.logp.logsumexp(1)
        others = self.vocabulary - self.keep.sum(1)
        # Rounding can bring the sum to 1 or above: the others keep the smallest mass that the precision can tell.
        left = torch.log1p(-known.clamp(max=-torch.finfo(known.dtype).eps).exp())
        full = (left - others.clamp(min=1).log())[:, None].repeat(1, self.vocabulary)
        full.scatter_reduce_(1, self.ids, self.logp, "amax", include_self=False)
        if temperature == self.temperature:
            return full
        return (full * (self.temperature / temperature)).log_softmax(-1)


@dataclass(frozen=True)
class MixtureTarget:
    """p = sum_k weights[n, k] p_k: several teachers of a row, or another one for each.

    ``weights`` [N, K] of the parts, each row adds up to 1. A part is looked at only where some row gives it weight.
    """

    weights: Tensor
    parts: tuple[Target, ...]

    def __len__(self) -> int:
        return self.weights.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> MixtureTarget:
        return MixtureTarget(self.weights[rows], tuple(part[rows] for part in self.parts))

    def log_probs(self, temperature: float) -> Tensor:
        """The softmax temperature is that of each part."""
        heard = [
            (self.weights[:, k], part) for k, part in enumerate(self.parts) if bool((self.weights[:, k] > 0).any())
        ]
        if len(heard) == 1 or not len(self):  # bit for bit what that teacher says
            return (heard[0][1] if heard else self.parts[0]).log_probs(temperature)
        spoken = [part.log_probs(temperature) + weight.log()[:, None] for weight, part in heard]
        return torch.stack(spoken).logsumexp(0)


@dataclass(frozen=True)
class UniformTarget:
    """N times the uniform distribution over V tokens: KL(student || uniform) = log V - entropy(student)."""

    rows: int
    vocabulary: int
    like: Tensor  # its dtype and device

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: slice | Tensor) -> UniformTarget:
        count = (
            len(range(*rows.indices(self.rows)))
            if isinstance(rows, slice)
            else int(self.like.new_ones(self.rows)[rows].sum())
        )
        return UniformTarget(count, self.vocabulary, self.like)

    def log_probs(self, temperature: float) -> Tensor:
        del temperature
        return self.like.new_full((self.rows, self.vocabulary), -math.log(self.vocabulary))


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Log-softmax over the last axis in at least float32: bfloat16 would quantise the differences we live on."""
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    return logits.log_softmax(-1)


def chunks(rows: int, vocabulary: int, *, budget: int = _CPU_BUDGET) -> list[slice]:
    """Slices of [0, rows) that keep rows x vocabulary of one slice near ``budget`` elements."""
    size = max(1, budget // max(1, vocabulary))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def scan_budget(device: torch.device) -> int:
    """Elements of a vocabulary-sized chunk that is looked at without gradients."""
    return _CUDA_BUDGET if device.type == "cuda" else _CPU_BUDGET


def aligned(weight: Tensor, vocabulary: int) -> Tensor:
    """The first V rows of a head's weight; on a GPU some more, up to a multiple of eight: [>= V, H].

    A product with an odd vocabulary runs several times slower there. Rows that the weight does not have are zeros.
    """
    if not weight.is_cuda:
        return weight[:vocabulary]
    rows = vocabulary + -vocabulary % _ALIGNMENT
    missing = rows - len(weight)
    return torch.nn.functional.pad(weight, (0, 0, 0, missing)) if missing > 0 else weight[:rows]
