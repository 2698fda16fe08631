"""Parameters with an optimizer and a gradient bound of their own: the student, and beside it the critic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from opd_core.models import LanguageModel, part, whole
from opd_core.spec.job import OptimizerSpec


@dataclass(frozen=True)
class Learner:
    """A module and its AdamW. The critic's gradients never count towards the student's clipping, nor its rate."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    max_grad_norm: float

    def clip(self) -> float:
        """Bound the gradient's norm; returns what it was before."""
        return float(whole(torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.max_grad_norm)))

    def step(self, lr: float) -> None:
        """One update at this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """The optimizer's state as it is held, 'moment:parameter' and tensor."""
        for name, parameter in self.module.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                yield f"{key}:{name}", value.detach()

    def moments(self) -> dict[str, Tensor]:
        """The same for a checkpoint."""
        return {label: value.contiguous() for label, value in self.state()}

    def restore(self, moments: dict[str, Tensor]) -> None:
        """Put back what ``moments`` returned, whole tensors also where only a part is held."""
        parameters = dict(self.module.named_parameters())
        for label, value in moments.items():
            key, name = label.split(":", 1)
            parameter = parameters[name]
            # AdamW keeps its step count on the CPU unless fused; moments live beside their parameter.
            self.optimizer.state[parameter][key] = part(value, parameter) if value.shape == parameter.shape else value


def student_learner(lm: LanguageModel, spec: OptimizerSpec) -> Learner:
    """Of all parameters of ``lm`` that take gradients."""
    return Learner(
        lm.model,
        torch.optim.AdamW(
            [parameter for parameter in lm.model.parameters() if parameter.requires_grad],
            lr=spec.lr,
            betas=spec.betas,
            weight_decay=spec.weight_decay,
        ),
        spec.max_grad_norm,
    )
