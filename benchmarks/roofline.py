"""What writing and scoring would take if nothing but this machine's arithmetic and memory held them up.

Per token of a dense model with ``body`` parameters below its head, in a context of c tokens: 2 body + 4 L n d c
operations (attention to c keys and values in L layers of n heads of width d), and 2 head more where logits are wanted.
The weights are read once for a batch, the keys and values of a row once for each token that it writes. A phase takes
as long as the slower of the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_SIDE = 2048  # of the matrices that are multiplied
_READ = 2**26  # numbers of the matrix that is read: beyond any cache


@dataclass(frozen=True)
class Peak:
    """Measured: operations a second of a matrix product, bytes a second of a matrix-vector product."""

    flops: float
    bandwidth: float

    def seconds(self, flops: float, read: float) -> float:
        return max(flops / self.flops, read / self.bandwidth)


def measure(rounds: int) -> Peak:
    """The best of ``rounds``, in float32 and with the threads that torch has here."""
    import torch

    square, long = torch.randn(_SIDE, _SIDE), torch.randn(_READ // 4096, 4096)
    vector = torch.randn(4096)
    product = _best(lambda: square @ square, rounds)
    reading = _best(lambda: long @ vector, rounds)
    return Peak(2 * _SIDE**3 / product, 4 * _READ / reading)


def _best(work: Callable[[], Any], rounds: int) -> float:
    seconds = []
    for _ in range(rounds + 1):  # the first one allocates
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


@dataclass(frozen=True)
class Shape:
    """What a model costs: parameters, operations per token of context, bytes of keys and values per token."""

    body: int
    head: int
    attention: int
    cached: int

    @classmethod
    def of(cls, lm: Any) -> Shape:
        """Of a loaded ``LanguageModel`` in float32."""
        config, head = lm.model.config.get_text_config(), lm.head.weight.numel()
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        kept = getattr(config, "num_key_value_heads", None) or heads
        return cls(lm.flop_parameters - head, head, 4 * layers * heads * width, 8 * layers * kept * width)

    def scoring_s(self, prompts: Sequence[int], completions: Sequence[int], budget: int, peak: Peak) -> float:
        """Reading prompts and completions of these lengths once, ``budget`` tokens at a time, with logits of what was
        written.
        """
        spans = [p + c for p, c in zip(prompts, completions, strict=True)]
        flops = sum(2 * self.body * n + self.attention * n * n / 2 for n in spans) + 2 * self.head * sum(completions)
        batches = -(-sum(spans) // budget)
        return peak.seconds(flops, 4 * (self.body + self.head) * batches)

    def writing_s(self, prompts: Sequence[int], completions: Sequence[int], peak: Peak) -> float:
        """Reading the prompts, and then token by token with the rows that still write."""
        weights = self.body + self.head
        flops = sum(2 * self.body * p + self.attention * p * p / 2 + 2 * self.head for p in prompts)
        seconds = peak.seconds(flops, 4 * weights)
        for t in range(1, max(completions)):
            seen = [p + t for p, c in zip(prompts, completions, strict=True) if c > t]
            flops = 2 * weights * len(seen) + self.attention * sum(seen)
            seconds += peak.seconds(flops, 4 * weights + self.cached * sum(seen))
        return seconds
