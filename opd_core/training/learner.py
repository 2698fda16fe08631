"""Parameters with an optimizer and a gradient bound of their own: the student, and beside it the critic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Learner:
    """A module and its AdamW. The critic's gradients never count towards the student's clipping, nor its rate."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    max_grad_norm: float

    def clip(self) -> float:
        """Bound the gradient's norm; returns what it was before."""
        return float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.max_grad_norm))

    def step(self, lr: float) -> None:
        """One update at this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state, 'moment:parameter' -> tensor."""
        return {
            f"{key}:{name}": value.detach().contiguous()
            for name, parameter in self.module.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def restore(self, moments: dict[str, Tensor]) -> None:
        """Put back what ``moments`` returned."""
        parameters = dict(self.module.named_parameters())
        for label, value in moments.items():
            key, name = label.split(":", 1)
            parameter = parameters[name]
            # AdamW keeps its step count on the CPU unless fused; moments live beside their parameter.
            moved = value.to(parameter.device) if value.shape == parameter.shape else value
            self.optimizer.state[parameter][key] = moved
