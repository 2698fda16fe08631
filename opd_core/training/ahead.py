"""The student reads its rollouts before the teacher is asked, where the teacher has to be told what to speak of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from opd_core.models import Head
from opd_core.objective.plan import PlanState
from opd_core.objective.proposals import propose
from opd_core.objective.targets import HiddenTarget
from opd_core.rollout import Rollouts
from opd_core.spec import MethodSpec
from opd_core.teachers import Teacher
from opd_core.training.student_step import Reading, StudentStep
from opd_core.training.update import read_rollouts


@dataclass(frozen=True)
class Ahead:
    """Both None where the teacher gives whole distributions.

    The update is planned from this ``reading``, so that what it compares is what was asked, to the last equal rank.
    """

    reading: Reading | None = None
    proposed: Tensor | None = None  # [N, K] token ids for ``Asked``


def read_ahead(
    teacher: Teacher,
    method: MethodSpec,
    module: StudentStep,
    head: Head,
    rollouts: Rollouts,
    *,
    micro_tokens: int,
    state: PlanState,
    special_ids: Sequence[int],
) -> Ahead:
    """One forward of the student without gradients, or nothing. Of ``state`` it takes the running statistics."""
    if not teacher.wants_proposals:
        return Ahead()
    reading = read_rollouts(module, rollouts, micro_tokens=micro_tokens, state=state)
    return Ahead(reading, propose(method, HiddenTarget(reading.hidden, head), special_ids))
