"""The one module that distribution wrappers wrap: student and critic, from a batch and its plan to a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from opd_core.models import Head, ValueHead, recomputed
from opd_core.objective.critic import critic_loss
from opd_core.objective.loss import head_loss
from opd_core.objective.plan import UpdatePlan
from opd_core.rollout import Rollouts, visit, visit_all


class ValueScale(NamedTuple):
    """Running mean and deviation of what the critic is taught, fixed within a step."""

    mean: float
    std: float


@dataclass(frozen=True)
class Reading:
    """What the student's trunk and the critic make of a batch, without gradients."""

    hidden: Tensor  # [N, H] at the states of the completion tokens
    ends: Tensor  # [B, H] after the last one
    values: Tensor | None  # [N] the critic's
    end_values: Tensor | None  # [B]


class StepLoss(NamedTuple):
    """``total`` takes the gradients; the others are detached shares of it, and the loss of each token [N]."""

    total: Tensor
    student: Tensor
    critic: Tensor
    tokens: Tensor


class StudentStep(nn.Module):
    """Calling trunk, head or critic outside this module would bypass a wrapper's gradient synchronisation."""

    def __init__(
        self,
        trunk: nn.Module,
        head: Head,
        critic: ValueHead | None = None,
        *,
        detach_trunk: bool = True,
        recompute: bool = False,
    ) -> None:
        """``detach_trunk``: the critic reads the trunk without shaping it. ``recompute``: for memory (recompute.py)."""
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.critic = critic
        self.detach_trunk = detach_trunk
        self.recompute = recompute
        self.sharded = False  # then each pass of the trunk is one of all processes together (sharded.py)

    def forward(
        self,
        pieces: Sequence[Rollouts],
        plan: UpdatePlan | Callable[[Reading], UpdatePlan],
        scale: ValueScale,
        idle: int = 0,
    ) -> StepLoss:
        """The pieces' share of the step's loss; N runs over the pieces in order.

        ``plan`` may be a function of what was read: when one call sees the whole batch, the plan is made from the same
        trunk forward that takes the gradient. ``idle`` passes of the trunk count for nothing: others need them.
        """
        with recomputed(self.trunk) if self.recompute else nullcontext():
            visited = visit_all(self.trunk, pieces)
            nothing = [0.0 * part.sum() for part in self._idle(pieces, idle)]
        values = self._values(visited.rows, scale)
        if callable(plan):
            plan = plan(
                Reading(
                    visited.rows.detach(),
                    visited.ends.detach(),
                    None if values is None else values.detach(),
                    self._end_values(visited.ends, scale),
                )
            )
        loss, tokens = head_loss(plan, visited.rows, self.head)
        learned = torch.zeros_like(loss)
        if values is not None and plan.critic is not None:
            learned = critic_loss(plan.critic, values, plan.normalizer)
        return StepLoss(sum(nothing, loss + learned), loss.detach(), learned.detach(), tokens)

    @torch.no_grad()
    def read(self, pieces: Sequence[Rollouts], scale: ValueScale, idle: int = 0) -> Reading:
        """The batch without gradients, where it does not fit one forward."""
        visited = visit_all(self.trunk, pieces)
        self._idle(pieces, idle)
        values = self._values(visited.rows, scale)
        return Reading(visited.rows, visited.ends, values, self._end_values(visited.ends, scale))

    def _idle(self, pieces: Sequence[Rollouts], times: int) -> list[Tensor]:
        return [visit(self.trunk, pieces[0].select(slice(0, 1))).ends for _ in range(times)]

    def _values(self, hidden: Tensor, scale: ValueScale) -> Tensor | None:
        if self.critic is None:
            return None
        return self.critic(hidden.detach() if self.detach_trunk else hidden, scale.mean, scale.std)

    @torch.no_grad()
    def _end_values(self, ends: Tensor, scale: ValueScale) -> Tensor | None:
        return None if self.critic is None else self.critic(ends, scale.mean, scale.std)
