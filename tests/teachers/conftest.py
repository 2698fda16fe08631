"""A student, a teacher, and rollouts of the one for the other to score."""

from __future__ import annotations

import pytest

from opd_core.models import load_model
from opd_core.rollout import uniform_noise, write
from opd_core.spec import ModelSpec, TaskSpec
from opd_core.tasks import load_task
from opd_core.teachers import Asked


@pytest.fixture
def world(tiny_world, tiny_spec):
    student, teacher = (
        load_model(ModelSpec(model=str(path)), device="cpu", trainable=path == tiny_world.student, role="teacher")
        for path in (tiny_world.student, tiny_world.teacher)
    )
    spec = TaskSpec(dataset=str(tiny_world.problems), prompt_column="question", answer_column="answer", eval_examples=4)
    task = load_task(spec, student.tokenizer, seed=0)
    problems = task.train[:5]
    rollouts = write(
        student,
        [task.encode(problem) for problem in problems],
        max_new_tokens=7,
        noise=uniform_noise(0, 1, [(problem.id, 0) for problem in problems], 7),
    )
    return student, teacher, task, Asked(rollouts, problems, [None] * 5)
