"""The teacher of a world behind a fake server, and one step's gradients from whoever teaches."""

from __future__ import annotations

from dataclasses import replace

import torch

from opd_core.objective.feedback import FeedbackContext
from opd_core.objective.plan import PlanState
from opd_core.spec import MethodSpec
from opd_core.spec.combinations import students_favourites
from opd_core.teachers import RemoteTeacher
from opd_core.training.ahead import read_ahead
from opd_core.training.context import special_ids
from opd_core.training.student_step import StudentStep
from opd_core.training.update import Update
from tests.teachers.fake_server import FakeServer


def remote(world, fake=None, context=None, method: MethodSpec | None = None, **settings) -> RemoteTeacher:
    student, teacher, task, _ = world
    fake = fake or FakeServer(teacher)
    server = fake.server(**{"top_k": 8, "patience_s": 1.0, **settings})
    wants = method is not None and students_favourites(method) > 0
    return RemoteTeacher(server, task, vocabulary=student.vocab_size, context=context, wants_proposals=wants)


def gradients(world, teacher, method: MethodSpec, micro_tokens: int = 10_000):
    """One step's gradients, and its update."""
    student, _, _, asked = world
    module = StudentStep(student.trunk, student.head)
    module.zero_grad(set_to_none=True)
    special, state = special_ids(student), PlanState()
    ahead = read_ahead(
        teacher,
        method,
        module,
        student.head,
        asked.rollouts,
        micro_tokens=micro_tokens,
        state=state,
        special_ids=special,
    )
    update = Update(
        method=method,
        module=module,
        head=student.head,
        rollouts=asked.rollouts,
        scores=teacher.score(replace(asked, proposed=ahead.proposed), micro_tokens=micro_tokens).scores,
        micro_tokens=micro_tokens,
        state=state,
        context=FeedbackContext(
            behaviour_logp=asked.rollouts.behaviour_logp, eos_ids=student.eos_ids, special_ids=special
        ),
        reading=ahead.reading,
    )
    update.take_gradients()
    grads = torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])
    return grads, update
