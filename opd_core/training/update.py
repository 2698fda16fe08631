"""Feedback, plan and gradients of one batch, in three phases.

1. Feedback for the whole batch, without gradients. 2. The plan, from the whole batch (normalisers, batch statistics).
3. Gradients, group by group. Where one group holds it all, the student's trunk runs once for all three;
otherwise it reads the batch once more without gradients. The split never changes the update.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.plan import PlanState, UpdatePlan, build_plan
from opd_core.objective.targets import HiddenTarget
from opd_core.rollout import Rollouts, completion_hidden, micro_batches
from opd_core.spec import MethodSpec
from opd_core.training.student_step import StudentStep


class Update:
    """``take_gradients()`` fills the module's gradients; ``feedback``, ``plan`` and ``student`` are there after it."""

    feedback: Feedback
    plan: UpdatePlan
    student: HiddenTarget  # the student's rows as they were before the update

    def __init__(
        self,
        *,
        method: MethodSpec,
        module: StudentStep,
        rollouts: Rollouts,
        scores: HiddenTarget,
        micro_tokens: int,
        state: PlanState,
    ) -> None:
        self.rollouts = rollouts
        self._method, self._module, self._scores, self._state = method, module, scores, state
        self._groups = micro_batches(rollouts, micro_tokens)

    @property
    def extra_forward(self) -> bool:
        """Whether the student reads the batch twice."""
        return len(self._groups) > 1

    def take_gradients(self) -> float:
        """Accumulate the gradients of the whole step; returns its loss."""
        if not self.extra_forward:
            loss, _ = self._module(self._groups[0], self._make_plan)
            loss.backward()
            return float(loss.detach())
        pieces = [piece for group in self._groups for piece in group]
        with torch.no_grad():
            plan = self._make_plan(torch.cat([completion_hidden(self._module.trunk, piece) for piece in pieces]))
        total, start = 0.0, 0
        for group in self._groups:
            stop = start + sum(int(piece.mask.sum()) for piece in group)
            loss, _ = self._module(group, plan[slice(start, stop)])
            loss.backward()
            total, start = total + float(loss.detach()), stop
        return total

    def _make_plan(self, hidden: Tensor) -> UpdatePlan:
        self.student = HiddenTarget(hidden, self._module.head)
        context = FeedbackContext(
            behaviour_logp=self.rollouts.behaviour_logp, temperature=self._method.objective.temperature
        )
        self.feedback = Feedback.from_rows(
            self.student,
            self._scores,
            self.rollouts.tokens,
            self.rollouts.mask,
            truncated=self.rollouts.truncated,
            context=context,
        )
        self.plan = build_plan(self._method, self.feedback, self._state)
        return self.plan
