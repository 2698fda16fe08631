"""Feedback, plan and gradients of one batch, in three phases.

1. Feedback for the whole batch, without gradients. 2. The plan, from the whole batch (normalisers, batch statistics).
3. Gradients, group by group. Where one group holds it all, the student's trunk runs once for all three;
otherwise it reads the batch once more without gradients. The split never changes the update.

Where several processes share the step, the student of each reads its own rows; all of them plan the whole batch from
what all have read, and their gradients are added up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opd_core.models import Head
from opd_core.objective.aim import aim
from opd_core.objective.candidates import wanted_k
from opd_core.objective.feedback import Feedback, FeedbackContext, unpack
from opd_core.objective.gae import value_at_end
from opd_core.objective.plan import PlanState, UpdatePlan, build_plan
from opd_core.objective.targets import HiddenTarget
from opd_core.rollout import Rollouts, micro_batches
from opd_core.spec import MethodSpec
from opd_core.teachers import Scores
from opd_core.training.ranks import ALONE, Ranks
from opd_core.training.sharing import Group, add_gradients, even, share
from opd_core.training.student_step import Reading, StudentStep, ValueScale


@dataclass(frozen=True)
class Losses:
    """The step's loss, and the critic's apart from it (0 without one)."""

    student: float
    critic: float


class Update:
    """``take_gradients()`` fills the module's gradients, ``look()`` does not.

    ``feedback``, ``plan`` and ``student`` are there after either.
    """

    feedback: Feedback
    plan: UpdatePlan
    student: HiddenTarget  # the student's rows as they were before the update

    def __init__(
        self,
        *,
        method: MethodSpec,
        module: StudentStep,
        head: Head,
        rollouts: Rollouts,
        scores: Scores,
        micro_tokens: int,
        state: PlanState,
        context: FeedbackContext,
        reference: Scores | None = None,
        reading: Reading | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """``head`` is the student's, whole also where the module's is not (sharded.py); ``context`` holds what is known
        of the rollouts (context.py); ``reference`` is the student at the start.

        ``reading``: ``read_rollouts`` of the same student, where it had to read before the teacher was asked.
        Everything is of the whole batch, on every one of ``ranks``.
        """
        self.rollouts = rollouts
        self._method, self._module, self._head, self._scores, self._state = method, module, head, scores, state
        self._context, self._reference = context, reference
        self._reading = reading
        self._scale = _value_scale(state)
        self._ranks = ranks
        self._own = share(rollouts, ranks)
        self._groups = _groups(module, rollouts.select(self._own), micro_tokens, ranks)

    @property
    def extra_forward(self) -> bool:
        """Whether the student reads its rows twice."""
        return self._reading is not None or len(self._groups) > 1

    def take_gradients(self) -> Losses:
        """Accumulate the gradients of the whole step; returns its loss."""
        own = self._take_own_gradients()
        add_gradients(self._module, self._ranks)
        return Losses(*self._ranks.total(own.student, own.critic))

    def _take_own_gradients(self) -> Losses:
        if not self.extra_forward:
            (group,) = self._groups
            loss = self._module(group.pieces, self._make_plan, self._scale, group.idle)
            loss.total.backward()
            return Losses(float(loss.student), float(loss.critic))
        plan = self._make_plan(self._read())
        student = critic = 0.0
        start = 0
        for group in self._groups:
            stop = start + sum(int(piece.mask.sum()) for piece in group.pieces)
            loss = self._module(group.pieces, plan[slice(start, stop)], self._scale, group.idle)
            loss.total.backward()
            student, critic, start = student + float(loss.student), critic + float(loss.critic), stop
        return Losses(student, critic)

    @torch.no_grad()
    def look(self) -> None:
        """Feedback and plan alone; nothing takes a gradient."""
        self._make_plan(self._read())

    def _read(self) -> Reading:
        return self._reading if self._reading is not None else _read(self._module, self._groups, self._scale)

    def _make_plan(self, reading: Reading) -> UpdatePlan:
        """The plan of this process's tokens, out of the whole one."""
        rollouts, reading = self.rollouts, self._of_all(reading)
        self.student = HiddenTarget(reading.hidden, self._head)
        feedback = Feedback.from_rows(
            self.student,
            self._scores.rows,
            rollouts.tokens,
            rollouts.mask,
            context=replace(self._context, reference=None if self._reference is None else self._reference.rows),
            top_k=wanted_k(self._method),
        )
        values = bootstrap = None
        if reading.values is not None and reading.end_values is not None:
            values = unpack(reading.values, rollouts.mask)
            bootstrap = self._bootstrap(reading.ends, reading.end_values)
        self.feedback = replace(feedback, values=values, bootstrap=bootstrap, truncated=rollouts.truncated)
        self.plan = build_plan(self._method, self.feedback, self._state)
        if self._ranks.count == 1:
            return self.plan
        start = int(rollouts.mask[: self._own.start].sum())
        return self.plan[slice(start, start + int(rollouts.mask[self._own].sum()))]

    def _of_all(self, reading: Reading) -> Reading:
        gather = self._ranks.gather
        return Reading(
            gather(reading.hidden),
            gather(reading.ends),
            None if reading.values is None else gather(reading.values),
            None if reading.end_values is None else gather(reading.end_values),
        )

    def _bootstrap(self, ends: Tensor, outputs: Tensor) -> Tensor:
        """V after the last action [B]: what the critic expects where the length cap cut a rollout, 0 where it ended."""
        cut = self.rollouts.truncated
        bootstrap = torch.zeros_like(outputs)
        if not bool(cut.any()):
            return bootstrap
        # Feedback at these states like at any other, but for a token that was never written: K needs none.
        nothing = self.rollouts.tokens.new_zeros((int(cut.sum()), 1))
        after = Feedback.from_rows(
            HiddenTarget(ends[cut], self._head),
            self._scores.ends[cut],
            nothing,
            torch.ones_like(nothing, dtype=torch.bool),
            context=FeedbackContext(
                temperature=self._context.temperature,
                teacher_temperature=self._context.teacher_temperature,
                reference=None if self._reference is None else self._reference.ends[cut],
            ),
        )
        kl = aim(self._method.objective, after).kl[:, 0]
        bootstrap[cut] = value_at_end(self._method.credit, kl, outputs[cut], self._state)
        return bootstrap


def read_rollouts(module: StudentStep, rollouts: Rollouts, *, micro_tokens: int, state: PlanState) -> Reading:
    """What the student makes of a whole batch without gradients, as an Update with these arguments would read it."""
    return _read(module, _groups(module, rollouts, micro_tokens, ALONE), _value_scale(state))


def _groups(module: StudentStep, rollouts: Rollouts, micro_tokens: int, ranks: Ranks) -> list[Group]:
    groups = micro_batches(rollouts, micro_tokens)
    return even(groups, ranks) if module.sharded else [Group(pieces) for pieces in groups]


def _read(module: StudentStep, groups: list[Group], scale: ValueScale) -> Reading:
    pieces = [piece for group in groups if not group.silent for piece in group.pieces]
    return module.read(pieces, scale, sum(group.passes for group in groups) - len(pieces))


def _value_scale(state: PlanState) -> ValueScale:
    return ValueScale(state.running.get("value_mean", 0.0), state.running.get("value_std", 1.0))
