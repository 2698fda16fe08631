"""vLLM as a teacher: recognised for what it can do, and the numbers of the same checkpoint in the process."""

from __future__ import annotations

import httpx
import pytest
import torch

from opd_core.recipes import adapt
from opd_core.spec import UserError
from opd_core.teachers import RemoteTeacher, Teacher, Voice
from tests.teachers.conftest import scored_world
from tests.teachers.served import gradients


@pytest.fixture
def world(served):
    return scored_world(served.world, problems=5, trainable=True)


def remote(served, world, **settings):
    student, _, task, _ = world
    server = served.server("big-teacher", "teacher", **settings)
    return RemoteTeacher(server, task, vocabulary=student.vocab_size, context=None)


def test_it_is_recognised_with_its_favourites_and_without_given_candidates(served, world):
    can = remote(served, world).check(adapt("tml-opd", {}))
    assert (can.dialect, can.top_k) == ("vLLM", 16)
    assert can.why_no_candidates is not None
    assert "student_top_k" not in can.supports
    with pytest.raises(UserError, match="does not score given candidates"):
        remote(served, world).check(adapt("union-topk", {"support": {"k": 8}}))


def test_the_completions_ignore_given_candidates_in_silence(served):
    """Why a server is judged by what it answers and not by its status."""
    body = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 1, "prompt_logprob_token_ids": [[1], [2]]}
    answer = httpx.post(f"{served.teacher.url}/v1/completions", json=body, timeout=60.0)
    assert answer.status_code == 200
    assert "prompt_token_id_logprobs" not in answer.text


@pytest.mark.parametrize("recipe", ["tml-opd", "topk-forward-kl", "cr-opd"])
def test_log_ratios_and_gradients_are_those_of_the_checkpoint_in_the_process(served, world, recipe):
    _, lm, task, _ = world
    away = remote(served, world, top_k=min(64, lm.vocab_size) if recipe != "tml-opd" else 1)
    theirs, far = gradients(world, away, adapt(recipe, {}))
    ours, near = gradients(world, Teacher([Voice("teacher", lm)], task), adapt(recipe, {}))
    apart = float((far.feedback.log_ratio - near.feedback.log_ratio).abs().max())
    off = float((theirs - ours).norm() / ours.norm())
    print(f"{recipe}: log-ratios within {apart:.1e} nats, gradients within {off:.1e} relative")
    assert apart < 1e-4
    assert off < 1e-5


def test_it_solves_problems(served, world):
    from opd_core.rollout import write
    from opd_core.training.evaluation import completions

    _, lm, task, _ = world
    greedy = write(lm, [task.encode(problem) for problem in task.eval], max_new_tokens=6, noise=None)
    assert remote(served, world).solve(task.eval, 6) == completions(lm, greedy)
    assert torch.isfinite(greedy.behaviour_logp).all()
