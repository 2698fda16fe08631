"""Two real processes share a step: each takes the gradients of its own rows of the plan, and they add up."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import nn

from opd_core.objective.critic import critic_loss
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import head_loss
from opd_core.objective.plan import build_plan
from opd_core.objective.targets import DenseTarget
from opd_core.recipes import load

N, V, H = 11, 9, 5
NAMES = ["forward-kl", "gae-cr-opd", "scope", "eopd"]


class PlainHead(nn.Linear):
    def rows(self):
        return self.weight, None

    def transform(self, raw):
        return raw


def world(name):
    """The same everywhere: a head, hidden states of three rollouts (one of them long), the step's plan."""
    torch.manual_seed(5)
    head = PlainHead(H, V, bias=False, dtype=torch.float64)
    hidden = torch.randn(N, H, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([7, 1, 3])[:, None]
    feedback = Feedback.from_rows(
        DenseTarget(head(hidden).detach()),
        DenseTarget(torch.randn(N, V, dtype=torch.float64)),
        torch.randint(V, mask.shape),
        mask,
        context=FeedbackContext(reward=torch.tensor([1.0, 0.0, 0.0]), group=torch.zeros(3)),
    )
    feedback = replace(feedback, values=torch.randn(mask.shape, dtype=torch.float64), bootstrap=torch.zeros(3))
    return head, hidden, build_plan(load(name).method, feedback)


def take(name, rows):
    """Gradient of the head, and of a critic that is linear in the hidden states, from some rows of the step."""
    head, hidden, plan = world(name)
    critic = nn.Linear(H, 1, dtype=torch.float64)
    nn.init.constant_(critic.weight, 0.1)
    loss, _ = head_loss(plan[rows], hidden[rows], head)
    values = critic(hidden[rows])[:, 0]
    total = loss + (
        0.0 * values.sum() if plan.critic is None else critic_loss(plan.critic[rows], values, plan.normalizer)
    )
    total.backward()
    return torch.cat([head.weight.grad.flatten(), critic.weight.grad.flatten()])


def rank(number, split, rendezvous, out):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=2)
    rows = slice(0, split) if number == 0 else slice(split, N)
    for name in NAMES:
        gradient = take(name, rows)
        dist.all_reduce(gradient)
        save_file({"gradient": gradient}, f"{out}/{name}.{number}.safetensors")
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="gloo over a file")
@pytest.mark.parametrize("split", [7, 0])  # unequal shares; a rank without a single completion token
def test_one_or_two_ranks_take_the_same_gradient(split, tmp_path: Path):
    mp.spawn(rank, args=(split, str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    for name in NAMES:
        whole = take(name, slice(0, N))
        for number in (0, 1):
            found = load_file(tmp_path / f"{name}.{number}.safetensors")["gradient"]
            torch.testing.assert_close(found, whole, atol=1e-12, rtol=0)
        assert float(whole.abs().max()) > 1e-3
