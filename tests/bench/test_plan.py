"""What a plan may say, and the matrix that it means."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from cli import specs
from cli.bench.cells import matrix
from cli.bench.plan import TESTED_FROM, effect_weights, read, weights
from opd_core.spec import UserError

PLANS = Path(__file__).parents[2] / "benchmarks" / "plans"
BASE: dict[str, Any] = {
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
    "rollout": {"prompts_per_step": 32, "samples_per_prompt": 1, "max_new_tokens": 36},
    "schedule": {"steps": 20},
}
PLAN: dict[str, Any] = {
    "name": "small",
    "base": BASE,
    "seeds": [0, 1],
    "arms": [{"name": "plain", "recipe": "tml-opd"}, {"name": "tip", "recipe": "tip"}],
}
FACTORIAL = [
    {"name": f"{credit}-{route}", "recipe": "tml-opd", "factors": {"credit": credit, "route": route}}
    for credit in ("immediate", "gae")
    for route in ("plain", "r", "a")
]


def plan(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(PLAN), **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": [0, 0]}, ["PLAN.seeds", "seed 0 is there twice"]),
        ({"seeds": []}, ["PLAN.seeds"]),
        ({"sedes": [1]}, ["PLAN.sedes", "no such field"]),
        ({"base": {**BASE, "seed": 3}}, ["PLAN.base", "leave seed out"]),
        ({"base": {**BASE, "schedule": {"until": {"flops": 1}}}}, ["PLAN.base", "it is the plan's budget"]),
        ({"budget": {"flops": 1e9, "wall_s": 3}}, ["PLAN.budget", "exactly one of"]),
        ({"arms": [{"name": "a", "recipe": "nonsense"}]}, ["arm 'a'", "no recipe 'nonsense'"]),
        ({"arms": [{"name": "../a", "recipe": "gkd"}]}, ["PLAN.arms.0.name"]),
        ({"arms": [{"name": "sft", "recipe": "sft"}]}, ["arm 'sft'", "control"]),
        ({"arms": [*PLAN["arms"], PLAN["arms"][0]]}, ["arm 'plain' is there twice"]),
        ({"contrasts": [{"name": "c", "arm": "plain"}]}, ["contrasts.0", "arm and against, or effect"]),
        ({"contrasts": [{"name": "c", "effect": {"credit": ["gae", "none"]}}]}, ["contrast 'c'", "factors"]),
        ({"contrasts": [{"name": "c", "arm": "tip", "against": "plain", "task": "x"}]}, ["no task 'x'"]),
        ({"controls": ["random"]}, ["PLAN.controls.0", "sft"]),
    ],
)
def test_a_bad_plan_gets_one_sentence(changes, words):
    with pytest.raises(UserError) as caught:
        read(plan(**changes))
    assert all(word in caught.value.message for word in words), caught.value.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"arms": [{"name": "a", "recipe": "gkd", "set": {"rollout": {"temperatur": 1}}}]},
            ["arm 'a'", "rollout.temp"],
        ),
        ({"tasks": [{"name": "t", "set": {"task": {"name": "x"}}}]}, ["arm 'plain' on task 't'", "task.name"]),
        ({"contrasts": [{"name": "c", "arm": "tip", "against": "nobody"}]}, ["no arm 'nobody'", "tip-random"]),
    ],
)
def test_a_plan_that_cannot_be_run_names_arm_and_field(changes, words):
    with pytest.raises(UserError) as caught:
        matrix(read(plan(**changes)))
    assert all(word in caught.value.message for word in words), caught.value.message


def test_the_matrix_is_every_arm_and_control_under_every_seed():
    found = matrix(read(plan(budget={"teacher_tokens": 5000})))
    names = ["plain", "tip", "sft", "off-policy-kd", "verifier-rl", "tip-random"]
    assert [arm.name for arm in found.arms] == names
    assert [(cell.seed, cell.arm) for cell in found.cells] == [(seed, name) for seed in (0, 1) for name in names]
    assert len({cell.key for cell in found.cells}) == len(found.cells)
    by_arm = {cell.arm: cell.resolved for cell in found.cells}
    assert all(spec.schedule.until.limit == ("teacher_tokens", 5000) for spec in by_arm.values())
    assert [gate["control"] for gate in by_arm["tip-random"].method["gates"]] == ["random"]
    assert [gate["control"] for gate in by_arm["tip"].method["gates"]] == ["none"]
    rollout = by_arm["verifier-rl"].rollout
    assert (rollout.prompts_per_step, rollout.samples_per_prompt) == (8, 4)  # as many completions
    assert by_arm["sft"].rollout.written_by.data == 1.0


@pytest.mark.parametrize("file", sorted(PLANS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_plans_of_the_repository_can_be_run(file):
    asked = read(specs.read(str(file)))
    found = matrix(asked)
    assert not found.left_out
    assert asked.name == file.stem
    if file.stem == "factorial":  # what it names is tested
        own = {arm.name: arm.seeds or asked.seeds for arm in asked.arms}
        for contrast in asked.contrasts:
            assert all(len(own.get(arm, asked.seeds)) >= TESTED_FROM for arm in weights(contrast, asked.arms))


def test_a_control_without_data_is_left_out_and_said():
    file = {"dataset": "/data/problems.jsonl", "prompt_column": "question"}
    asked = read(plan(base={**BASE, "task": file}))
    found = matrix(asked)
    assert found.left_out.keys() == {"sft", "verifier-rl"}
    assert "task.answer_column" in found.left_out["verifier-rl"]
    needs = read(plan(base={**BASE, "task": file}, contrasts=[{"name": "c", "arm": "plain", "against": "sft"}]))
    with pytest.raises(UserError, match="left out"):
        matrix(needs)


def test_a_changed_arm_is_another_run_and_the_others_stay():
    before = {cell.label: cell.key for cell in matrix(read(plan())).cells}
    arms = [PLAN["arms"][0], {**PLAN["arms"][1], "set": {"optimizer": {"lr": 0.01}}}]
    after = {cell.label: cell.key for cell in matrix(read(plan(arms=arms, seeds=[0, 1, 2]))).cells}
    assert {label for label in before if before[label] != after[label]} == {
        f"{arm}.base.s{seed}" for arm in ("tip", "tip-random") for seed in (0, 1)
    }


def test_effects_are_differences_of_means_and_of_differences():
    arms = read(plan(arms=FACTORIAL)).arms
    main = effect_weights({"credit": ("gae", "immediate")}, arms)
    assert main == {f"{c}-{r}": s / 3 for c, s in (("gae", 1), ("immediate", -1)) for r in ("plain", "r", "a")}
    interaction = effect_weights({"credit": ("gae", "immediate"), "route": ("r", "plain")}, arms)
    assert interaction == {"gae-r": 1.0, "gae-plain": -1.0, "immediate-r": -1.0, "immediate-plain": 1.0}
    # A setting in which one of the levels was not run says nothing.
    assert effect_weights({"credit": ("gae", "immediate")}, arms[:-1]).keys() == set(main) - {"gae-a", "immediate-a"}
    pair = read(plan(contrasts=[{"name": "c", "arm": "tip", "against": "plain"}])).contrasts[0]
    assert weights(pair, arms) == {"tip": 1.0, "plain": -1.0}
