"""The one module that distribution wrappers wrap: student trunk and head, from a batch and its plan to a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from opd_core.models import Head
from opd_core.objective.loss import head_loss
from opd_core.objective.plan import UpdatePlan
from opd_core.rollout import Rollouts, completion_hidden


class StudentStep(nn.Module):
    """Calling trunk or head outside this module would bypass a wrapper's gradient synchronisation."""

    def __init__(self, trunk: nn.Module, head: Head) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(
        self, pieces: Sequence[Rollouts], plan: UpdatePlan | Callable[[Tensor], UpdatePlan]
    ) -> tuple[Tensor, Tensor]:
        """(the pieces' share of the step's loss, detached per-token loss [N]); N runs over the pieces in order.

        ``plan`` may be a function of the detached hidden states [N, H]: when one call sees the whole batch, the plan
        is made from the same trunk forward that takes the gradient.
        """
        hidden = torch.cat([completion_hidden(self.trunk, piece) for piece in pieces])
        if callable(plan):
            plan = plan(hidden.detach())
        return head_loss(plan, hidden, self.head)
