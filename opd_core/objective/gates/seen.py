"""What a gate sees, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from opd_core.objective.draft import Draft
from opd_core.objective.feedback import Feedback
from opd_core.objective.state import PlanState


@dataclass(frozen=True)
class Seen:
    """The batch's feedback, its advantages [B, T] (0 in the direct route), and the state of the run."""

    feedback: Feedback
    advantages: Tensor
    state: PlanState

    def uniform(self, count: int) -> Tensor:
        """``count`` random numbers in [0, 1), float64, from the step's generator (a fixed one where it has none)."""
        return torch.rand(count, generator=self._generator(), dtype=torch.float64)

    def permutation(self, count: int) -> Tensor:
        """A random order of ``count`` things."""
        return torch.randperm(count, generator=self._generator())

    def _generator(self) -> torch.Generator:
        return self.state.generator or torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class Opened:
    """A gate's weights [B, T], >= 0; off the mask they do not count. ``added``: a force of the gate's own, [N] rows."""

    weights: Tensor
    added: Draft = field(default_factory=Draft)
