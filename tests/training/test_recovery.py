"""Whether the teacher can still repair what the student began."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from opd_core.rollout import imitated
from opd_core.tasks import Problem
from opd_core.training import evaluation
from opd_core.training.evaluation import recovery

RIGHT, WRONG = 7, 3


class Tokenizer:
    """Texts are token ids, joined."""

    def batch_decode(self, ids, *, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join(map(str, row)) for row in ids]


def rollouts(rows, prompts=None, acted=None):
    lm = SimpleNamespace(pad_id=0, eos_ids=(), head=SimpleNamespace(weight=torch.zeros(1)))
    return imitated(prompts or [[0]] * len(rows), rows, lm, acted)


@pytest.fixture
def asked(monkeypatch):
    """A teacher that ends with the right answer unless it has to go on from a wrong token; the prompts it was given."""
    seen = []

    def write(lm, prompts, *, max_new_tokens, noise, environment, begun):
        assert (max_new_tokens, noise, environment) == (12, None, None)
        assert all(
            prompt[len(prompt) - len(stretch) :] == stretch for prompt, stretch in zip(prompts, begun, strict=True)
        )
        seen.append(prompts)
        return rollouts([[1 if WRONG in prompt else RIGHT] for prompt in prompts], prompts)

    monkeypatch.setattr(evaluation, "write", write)
    return seen


def task(count):
    problems = [Problem(id=i, prompt=f"p{i}", answer=str(RIGHT)) for i in range(count)]
    return SimpleNamespace(
        eval=problems,
        encode=lambda problem: [100 + problem.id],
        verify=lambda text, answer: text.split()[-1] == answer,
        environment=None,
        by_turns=False,
        waits=False,
    )


def test_the_teacher_goes_on_from_a_share_of_what_the_student_wrote(asked):
    # The first goes wrong half way, the second never does.
    written = rollouts([[1, 1, 1, 1, 1, WRONG, 1, 1, 1, 1], [2, 2, 2, 2, 2]])
    teacher = SimpleNamespace(tokenizer=Tokenizer())
    found = recovery(teacher, task(2), written, problems=2, max_new_tokens=12)
    assert [[len(prompt) - 1 for prompt in prompts] for prompts in asked] == [[2, 1], [4, 2], [6, 3], [8, 4]]
    assert [prompt[0] for prompt in asked[0]] == [100, 101]
    assert found.solved == {20: 1.0, 40: 1.0, 60: 0.5, 80: 0.5}
    assert found.spent == sum(len(prompt) + 1 for prompts in asked for prompt in prompts)  # one token each


def test_only_as_many_problems_as_asked_for(asked):
    written = rollouts([[1, 1, 1, 1, 1]] * 3)
    teacher = SimpleNamespace(tokenizer=Tokenizer())
    recovery(teacher, task(3), written, problems=1, max_new_tokens=12)
    assert all(len(prompts) == 1 for prompts in asked)


def test_it_is_begun_before_an_action_and_never_within_an_answer(asked):
    written = rollouts([[1, 2, 8, 8, 3, 4, 5]], acted=[[True, True, False, False, True, True, True]])
    teacher = SimpleNamespace(tokenizer=Tokenizer())
    recovery(teacher, task(1), written, problems=1, max_new_tokens=12)
    assert [prompts[0][1:] for prompts in asked] == [[1], [1, 2, 8, 8], [1, 2, 8, 8, 3], [1, 2, 8, 8, 3, 4]]
