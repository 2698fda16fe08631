"""The small parts of the loop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from opd_core.objective.plan import PlanState
from opd_core.recipes import load
from opd_core.spec import OptimizerSpec
from opd_core.spec.job import ScheduleSpec, Until
from opd_core.tasks import Problem
from opd_core.training.budget import Budget
from opd_core.training.learner import Learner
from opd_core.training.prompts import PromptOrder
from opd_core.training.report import gap_recovered
from opd_core.training.schedule import done, learning_rate, spent
from opd_core.training.step import plan_state
from opd_core.training.tally import Tally


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(OptimizerSpec(lr=1.0, warmup_steps=4), step, 12) for step in range(1, 13)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.2
    flat = OptimizerSpec(lr=1.0, warmup_steps=0, decay="constant")
    assert {learning_rate(flat, step, 5) for step in range(1, 6)} == {1.0}
    floor = OptimizerSpec(lr=1.0, warmup_steps=0, decay="cosine", min_lr_ratio=0.5)
    assert min(learning_rate(floor, step, 100) for step in range(1, 101)) >= 0.5


def test_a_run_is_as_far_as_the_larger_of_its_shares():
    steps = ScheduleSpec(steps=10)
    tokens = ScheduleSpec(steps=10, until=Until(teacher_tokens=400))
    seconds = ScheduleSpec(steps=10, until=Until(wall_s=8.0))
    budget = Budget(teacher_tokens=300)
    budget.wall_s_by_phase |= {"rollout": 1.0, "update": 1.0, "evaluation": 100.0}  # evaluation is nobody's training
    assert [spent(one, budget) for one in (steps, tokens, seconds)] == [0.0, 0.75, 0.25]
    assert [done(one, budget, 4) for one in (steps, tokens, seconds)] == [0.3, 0.75, 0.3]
    assert done(tokens, Budget(teacher_tokens=500), 4) == 1.0
    settings = OptimizerSpec(lr=1.0, warmup_steps=2)
    assert learning_rate(settings, 1, 10, 0.75) == learning_rate(settings, 1, 10)  # it warms up all the same
    assert learning_rate(settings, 5, 10, 0.75) == 0.25
    assert learning_rate(settings, 10, 10, 0.75) == learning_rate(settings, 10, 10)


def test_prompt_order_covers_each_epoch_once_and_resumes_anywhere():
    problems = [Problem(id=i, prompt=str(i), answer=None) for i in range(7)]
    order = PromptOrder(problems, seed=3)
    taken = [problem.id for _ in range(7) for problem in order.take(3)]
    assert sorted(taken[:7]) == sorted(taken[7:14]) == list(range(7))
    assert taken[:7] != taken[7:14]
    resumed = PromptOrder(problems, seed=3, cursor=9)
    assert [problem.id for problem in resumed.take(5)] == taken[9:14]
    assert [p.id for p in PromptOrder(problems, seed=4).take(7)] != taken[:7]


def test_gap_recovered():
    assert gap_recovered(0.2, 0.6, 1.0) == pytest.approx(0.5)
    assert gap_recovered(0.2, 0.1, 1.0) == pytest.approx(-0.125)
    assert gap_recovered(0.5, 0.6, 0.5) is None
    assert gap_recovered(None, None, None) is None


def test_float32_weights_move_under_bfloat16_compute():
    """At lr 1e-6 a bfloat16 weight would never move; the master weights do."""
    from torch import nn

    layer = nn.Linear(8, 8)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-6)
    for _ in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = layer(torch.ones(2, 8)).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert layer.weight.dtype == torch.float32
    assert float((layer.weight - before).detach().abs().mean()) > 1e-6


def trainer(recipe: str, seed: int = 0):
    state = PlanState(running={"reward_mean": -1.0})
    return SimpleNamespace(spec=SimpleNamespace(seed=seed), method=load(recipe).method, state=state)


def test_chance_depends_on_seed_and_step_alone():
    def drawn(step: int, seed: int = 0) -> list[float]:
        return torch.rand(4, generator=plan_state(trainer("random-half", seed), step, 0.0).generator).tolist()

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)
    assert drawn(3) != drawn(3, seed=1)


def test_the_plan_sees_progress_statistics_and_the_critics_warm_up():
    t = trainer("gae-opd")
    assert t.method.credit.critic.warmup_steps > 0
    ready = [plan_state(t, step, 0.0).critic_ready for step in range(1, 21)]
    assert ready == [step > t.method.credit.critic.warmup_steps for step in range(1, 21)]
    assert plan_state(t, 10, 0.9).progress == 0.9
    assert plan_state(t, 1, 0.0).running == {"reward_mean": -1.0}
    assert plan_state(trainer("vopd"), 1, 0.0).critic_ready


def test_the_tally_goes_on_after_a_resume():
    steps = [{"gate_tip_share": 0.5, "loss": 9.0}, {"gate_tip_share": 0.1, "critic_loss": 2.0}, {"gate_tip_share": 0.3}]
    whole, first = Tally(), Tally()
    for step in steps:
        whole.add(step)
    first.add(steps[0])
    second = Tally(first.sums)
    second.add(steps[1])
    second.add(steps[2])
    assert second.sums == whole.sums
    assert whole.means("gate_tip_") == {"share": pytest.approx(0.3)}
    assert whole.means("critic_") == {"loss": 2.0}
    assert first.means("gate_tip_") == {"share": 0.5}  # its own sums are not the other's


def test_a_learner_clips_its_own_gradient_and_takes_up_where_it_stopped():
    def made() -> Learner:
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 4)
        return Learner(layer, torch.optim.AdamW(layer.parameters(), lr=9.0), max_grad_norm=0.5)

    def advance(learner: Learner, size: float) -> float:
        (size * learner.module(torch.ones(1, 4))).sum().backward()
        before = learner.clip()
        norm = torch.cat([p.grad.flatten() for p in learner.module.parameters()]).norm()
        assert float(norm) == pytest.approx(min(before, 0.5), rel=1e-4)
        learner.step(1e-2)
        assert all(p.grad is None for p in learner.module.parameters())
        return before

    whole, first, second = made(), made(), made()
    # 16 weights and 4 biases, each with gradient ``size``.
    assert advance(whole, 10.0) == pytest.approx(10.0 * 20**0.5)
    assert advance(whole, 0.01) == pytest.approx(0.01 * 20**0.5)
    advance(first, 10.0)
    second.module.load_state_dict(first.module.state_dict())
    second.restore(first.moments())
    advance(second, 0.01)
    assert torch.equal(second.module.weight, whole.module.weight)
