"""The critic: a small head on the student's trunk that says what the log-ratios still to come are worth.

value = mean + std x raw, with the running mean and deviation of what it was taught (held fixed within a step): raw is
of order 1 whatever the task, and a head that knows nothing, whose last layer is zero, says the mean. It is trained
beside the student and never part of the exported model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Last hidden states [..., H] of the trunk -> values [...], float32.

    Layer-normalised input (trunks differ in the scale of their hidden states), one hidden tanh layer of ``width``;
    width 0 is a linear head. Weights come from ``seed`` alone: neither drawn from nor visible in any other randomness.
    """

    def __init__(self, hidden_size: int, width: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.normal = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.inner = _linear(hidden_size, width, generator) if width else None
        self.last = _linear(width or hidden_size, 1, None)

    def forward(self, hidden: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Values in nats; ``mean`` and ``std`` are those of the values it is taught."""
        # Values are regressed on: bfloat16, in which the student may compute, would quantise them.
        with torch.autocast(hidden.device.type, enabled=False):
            features = self.normal(hidden.float())
            if self.inner is not None:
                features = torch.tanh(self.inner(features))
            return mean + std * self.last(features)[..., 0]


def _linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer with uniform weights from ``generator``; without one, of zeros."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        layer.bias.zero_()
        if generator is None:
            layer.weight.zero_()
        else:
            bound = 1.0 / math.sqrt(inputs)
            layer.weight.uniform_(-bound, bound, generator=generator)
    return layer
