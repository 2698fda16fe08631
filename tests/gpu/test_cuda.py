"""What only a GPU can show: the recorded decoding step, and the chunked head there.

tests/training runs on the GPU as well where there is one: every recipe in bfloat16.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_core.models import load_model
from opd_core.objective.feedback import Feedback
from opd_core.objective.loss import head_loss, plan_loss
from opd_core.objective.plan import build_plan
from opd_core.objective.targets import HiddenTarget
from opd_core.recipes import load
from opd_core.rollout import FixedEngine, completion_hidden, uniform_noise, write
from opd_core.spec import ModelSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14]] * 6
LONGER = [[*range(5, 29), *range(5, 20)], [7, 8]] * 4


@pytest.fixture
def student(tiny_world, monkeypatch):
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
    return load_model(ModelSpec(model=str(tiny_world.student)), device="cuda", trainable=True, role="student")


def written(student, prompts, engine, step=1):
    noise = uniform_noise(0, step, [(i, 0) for i in range(len(prompts))], 24)
    return write(student, prompts, max_new_tokens=24, noise=noise, engine=engine)


def test_the_recorded_step_writes_what_a_growing_cache_writes(student):
    engine = FixedEngine(student, torch.float32)
    for step, prompts in enumerate((PROMPTS, LONGER, PROMPTS, PROMPTS)):
        replayed, growing = written(student, prompts, engine, step), written(student, prompts, None, step)
        assert torch.equal(replayed.tokens[replayed.mask], growing.tokens[growing.mask])
        torch.testing.assert_close(replayed.behaviour_logp, growing.behaviour_logp, atol=1e-4, rtol=0)
    recording = engine._recorded
    assert recording is not None
    assert recording._graph is not None
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(0.7)
    replayed, growing = written(student, PROMPTS, engine), written(student, PROMPTS, None)
    assert engine._recorded is recording  # replayed, not recorded again
    torch.testing.assert_close(replayed.behaviour_logp, growing.behaviour_logp, atol=1e-4, rtol=0)


def test_a_bfloat16_writer_stays_close_to_how_it_is_scored(student):
    """The gap between writing and training, as every engine has one."""
    engine = FixedEngine(student, torch.bfloat16)
    rollouts = written(student, PROMPTS, engine)
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        scored = HiddenTarget(completion_hidden(student.trunk, rollouts), student.head).log_probs(1.0)
    told = scored.gather(1, rollouts.tokens[rollouts.mask][:, None])[:, 0]
    gap = told - rollouts.behaviour_logp[rollouts.mask]
    assert 0 < float(gap.abs().mean()) < 0.02


class _Head(torch.nn.Module):
    def __init__(self, vocabulary: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(vocabulary, width, device="cuda", dtype=dtype))

    def rows(self):
        return self.weight, None

    def transform(self, raw):
        return raw

    def forward(self, hidden):
        return hidden @ self.weight.T


@pytest.mark.parametrize("name", ["forward-kl", "topk-tail", "gae-opd", "cr-opd", "tml-opd"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_chunked_equals_dense(name, dtype, tolerance):
    torch.manual_seed(0)
    head, teacher = _Head(101, 16, dtype), _Head(101, 16, dtype)
    hidden = torch.randn(40, 16, device="cuda", dtype=dtype, requires_grad=True)
    tokens, mask = torch.randint(101, (4, 10), device="cuda"), torch.ones(4, 10, dtype=torch.bool, device="cuda")
    zeros = torch.zeros(4, 10, device="cuda", dtype=dtype)
    feedback = Feedback.from_rows(
        HiddenTarget(hidden.detach(), head), HiddenTarget(hidden.detach(), teacher), tokens, mask
    )
    plan = build_plan(load(name).method, replace(feedback, values=zeros, bootstrap=zeros[:, 0]))
    dense = (plan_loss(plan, head(hidden)) * plan.weights).sum() / plan.normalizer
    expected = torch.autograd.grad(dense, [hidden, head.weight])
    value, _ = head_loss(plan, hidden, head, chunk_budget=7 * 101)
    found = torch.autograd.grad(value, [hidden, head.weight])
    torch.testing.assert_close(value, dense, atol=tolerance, rtol=tolerance)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=10 * tolerance)
