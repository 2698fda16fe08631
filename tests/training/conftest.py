"""One small batch with everything a method can ask for: rewards, groups, a reference, a critic that knows something."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from opd_core.models import LanguageModel, ValueHead, load_model
from opd_core.objective.feedback import FeedbackContext
from opd_core.objective.plan import PlanState
from opd_core.rollout import Rollouts, uniform_noise, write
from opd_core.spec import MethodSpec, ModelSpec
from opd_core.teachers import Scores, score_with_ends
from opd_core.training.context import feedback_context
from opd_core.training.student_step import StudentStep
from opd_core.training.update import Update

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [3, 4]]


@dataclass(frozen=True)
class Batch:
    """Rollouts with what is known of them. ``rows`` are taken from all of it together."""

    rollouts: Rollouts
    group: Tensor
    reward: Tensor

    def reorder(self, rows: Tensor) -> Batch:
        return Batch(self.rollouts.reorder(rows), self.group[rows], self.reward[rows])


@dataclass(frozen=True)
class World:
    """Three models on one tokenizer, and what they say about a batch."""

    student: LanguageModel
    teacher: LanguageModel
    reference: LanguageModel
    batch: Batch

    def scores(self, lm: LanguageModel, batch: Batch, micro_tokens: int) -> Scores:
        return score_with_ends(lm, batch.rollouts, micro_tokens=micro_tokens)

    def context(self, method: MethodSpec, batch: Batch) -> FeedbackContext:
        nothing = torch.zeros(len(batch.rollouts), dtype=torch.bool)
        return feedback_context(
            method,
            self.student,
            batch.rollouts,
            group=batch.group,
            reward=batch.reward,
            from_data=nothing if "origin" in method.needs else None,
        )

    def module(self, method: MethodSpec) -> StudentStep:
        """With a critic that is not zero, where the method has one."""
        critic = None
        if "critic" in method.needs:
            critic = ValueHead(self.student.head.weight.shape[1], 8, seed=1)
            with torch.no_grad():
                critic.last.weight.normal_(generator=torch.Generator().manual_seed(2))
        detach = method.credit.critic.detach_trunk
        return StudentStep(self.student.trunk, self.student.head, critic, detach_trunk=detach)

    def update(
        self, method: MethodSpec, batch: Batch | None = None, *, micro_tokens: int = 10_000, shift: int = 0, **options
    ) -> tuple[Update, StudentStep]:
        """An update that has not taken its gradients. ``shift``: the teacher's scores stand that many rows off."""
        batch = self.batch if batch is None else batch
        module = options.pop("module", None) or self.module(method)
        module.zero_grad(set_to_none=True)
        scores = self.scores(self.teacher, batch, micro_tokens)
        moved = replace(scores, rows=replace(scores.rows, hidden=scores.rows.hidden.roll(shift, 0)))
        running = {"reward_mean": -0.3, "value_mean": -0.5, "value_std": 0.8}
        settings = {
            "state": PlanState(running=running, generator=torch.Generator().manual_seed(3)),
            "context": self.context(method, batch),
            "reference": self.scores(self.reference, batch, micro_tokens),
            **options,
        }
        update = Update(
            method=method,
            module=module,
            head=self.student.head,
            rollouts=batch.rollouts,
            scores=moved,
            micro_tokens=micro_tokens,
            **settings,
        )
        return update, module


@pytest.fixture(scope="session")
def world(tiny_world) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
        student, teacher, reference = (
            load_model(ModelSpec(model=str(path)), device="cpu", trainable=trainable, role=role)
            for path, trainable, role in (
                (tiny_world.student, True, "student"),
                (tiny_world.teacher, False, "teacher"),
                (tiny_world.student, False, "student"),
            )
        )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # the run is not at its first step: the student has moved on
        for parameter in reference.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    noise = uniform_noise(0, 1, [(i, 0) for i in range(len(PROMPTS))], 12)
    rollouts = write(student, PROMPTS, max_new_tokens=12, noise=noise)
    assert len(set(rollouts.lengths.tolist())) > 1  # a test of equal lengths would hide a local normaliser
    assert 0 < int(rollouts.truncated.sum()) < len(rollouts)
    batch = Batch(rollouts, torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]))
    return World(student, teacher, reference, batch)
