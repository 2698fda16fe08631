"""A student, a teacher, and rollouts of the one for the other to score."""

from __future__ import annotations

import pytest

from opd_core.models import load_model
from opd_core.rollout import uniform_noise, write
from opd_core.spec import ModelSpec, TaskSpec
from opd_core.tasks import load_task
from opd_core.teachers import Asked


def scored_world(tiny_world, *, problems: int, trainable: bool = False, **columns):
    """Student, teacher, the task, and what a teacher is asked about so many of its problems."""
    student, teacher = (
        load_model(ModelSpec(model=str(path)), device="cpu", trainable=trains, role="teacher")
        for path, trains in ((tiny_world.student, trainable), (tiny_world.teacher, False))
    )
    spec = TaskSpec(
        dataset=str(tiny_world.problems), prompt_column="question", answer_column="answer", eval_examples=4, **columns
    )
    task = load_task(spec, student.tokenizer, seed=0)
    asked = task.train[:problems]
    rollouts = write(
        student,
        [task.encode(problem) for problem in asked],
        max_new_tokens=7,
        noise=uniform_noise(0, 1, [(problem.id, 0) for problem in asked], 7),
    )
    return student, teacher, task, Asked(rollouts, asked, [None] * problems)


@pytest.fixture
def world(tiny_world, tiny_spec):
    return scored_world(tiny_world, problems=5, trainable=True)
