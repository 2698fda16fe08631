"""A tiny student and teacher, and what the student wrote."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_core.models import load_model
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.targets import DenseTarget, HiddenTarget
from opd_core.rollout import completion_hidden, uniform_noise, write
from opd_core.spec import ModelSpec
from opd_core.teachers import score_with_ends

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [12, 13, 14]]


@pytest.fixture(scope="module")
def world(tiny_world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
        student, teacher = (
            load_model(ModelSpec(model=str(path)), device="cpu", trainable=role == "student", role=role)
            for role, path in (("student", tiny_world.student), ("teacher", tiny_world.teacher))
        )
    noise = uniform_noise(0, 1, [(i, 0) for i in range(len(PROMPTS))], 10)
    rollouts = write(student, PROMPTS, max_new_tokens=10, noise=noise)
    with torch.no_grad():
        own = HiddenTarget(completion_hidden(student.trunk, rollouts), student.head)
        theirs = score_with_ends(teacher, rollouts, micro_tokens=10_000).rows
    return student, rollouts, own, theirs


@pytest.fixture
def complete():
    """Feedback that lacks nothing any method may need: critic, rewards, groups, a reference."""

    def make(method, student, teacher, rollouts) -> Feedback:
        rows = len(rollouts)
        context = FeedbackContext(
            temperature=method.objective.temperature,
            teacher_temperature=method.objective.teacher_temperature,
            reference=DenseTarget(0.9 * student.head(student.hidden)),
            reward=(torch.arange(rows) % 2).float(),
            group=torch.zeros(rows, dtype=torch.long),
            from_data=torch.arange(rows) == 1 if "origin" in method.needs else None,
        )
        found = Feedback.from_rows(student, teacher, rollouts.tokens, rollouts.mask, context=context)
        values = torch.linspace(-1.0, 0.0, rollouts.mask.numel()).reshape(rollouts.mask.shape)
        return replace(found, values=values, bootstrap=torch.full((rows,), -0.5), truncated=rollouts.truncated)

    return make
