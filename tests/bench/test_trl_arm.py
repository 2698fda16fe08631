"""TRL as an arm: its record is one of ours, over the same problems and the same prompts, at the budget."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl", reason="pip install 'opd[peers]'")

from trl import DistillationTrainer

from benchmarks.peers.trl_arm import cells, run
from cli.bench.cells import matrix
from cli.bench.plan import read
from cli.bench.results import results
from opd_core.tasks import load_task
from opd_core.training.prompts import PromptOrder
from opd_core.training.run import train
from tests.tiny import tiny_body


@pytest.fixture
def plan(tiny_world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("OPD_MODEL_ROOTS", "OPD_DATA_ROOTS"):
        monkeypatch.setenv(name, str(tiny_world.root))
    base = tiny_body(tiny_world, schedule={"steps": 40, "evaluate_every": 2, "pass_at_k": 2})
    base.pop("name")
    arm = {"name": "ours", "recipe": "forward-kl"}
    fields = {
        "arms": [arm],
        "peers": [{"name": "trl"}],
        "seeds": [3],
        "controls": [],
        "budget": {"teacher_tokens": 700},
    }
    yield read({"name": "tiny", "base": base, **fields})
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The prompts of each step, as TRL's own generation gets them."""
    seen: list[list[str]] = []
    generate = DistillationTrainer._generate

    def spy(trainer: Any, prompts: list[str]) -> Any:
        seen.append(list(prompts))
        return generate(trainer, prompts)

    monkeypatch.setattr(DistillationTrainer, "_generate", spy)
    return seen


def test_the_peer_does_the_same_work_and_stands_in_the_same_table(
    plan: Any, asked: list[list[str]], tmp_path: Any
) -> None:
    (cell,) = cells(plan, "trl")
    record = run(cell, beta=0.0)
    assert (record.arm, record.seed, record.status) == ("trl", 3, "succeeded")
    report, outcomes = record.report, record.outcomes
    assert report is not None
    assert outcomes is not None
    assert 0 < report["steps"] < 40
    spent = report["budget"]
    # It ends with the step that reaches the budget, and it reads our prompts and what it wrote, nothing else.
    assert spent["teacher_tokens"] >= 700 > record.curve["teacher_tokens"][-2]
    tokenizer, rollout = _tokenizer(cell), cell.resolved.rollout
    order = PromptOrder(_task(cell, tokenizer).train, seed=3)
    problems = order.take(report["steps"] * rollout.prompts_per_step)
    rows = [problem.prompt for problem in problems for _ in range(rollout.samples_per_prompt)]
    assert [prompt for step in asked for prompt in step] == rows
    prompts = rollout.samples_per_prompt * sum(len(tokenizer(problem.prompt)["input_ids"]) for problem in problems)
    assert spent["teacher_tokens"] == prompts + spent["student_tokens"]
    assert record.curve["step"][0] == 0
    assert record.curve["accuracy"][-1] == report["accuracy"]["after"]

    (own,) = matrix(plan).cells
    train(own.resolved, tmp_path / "ours", emit=lambda message: None)
    known = json.loads((tmp_path / "ours" / "evaluation.json").read_text())
    assert outcomes.problems == known["problems"]
    assert outcomes.before == known["before"]["correct"]
    assert outcomes.teacher == known["teacher"]
    assert outcomes.samples_solved_before == known["before"]["samples_solved"]
    assert outcomes.samples_solved is not None
    assert len(outcomes.samples_solved) == len(known["problems"])
    table = results(plan, matrix(plan), [record])
    assert table["tasks"]["base"]["arms"]["trl"]["seeds"] == [3]
    assert table["runs"]["peers"] == 1


def _tokenizer(cell: Any) -> Any:
    return AutoTokenizer.from_pretrained(cell.resolved.student.model)


def _task(cell: Any, tokenizer: Any) -> Any:
    return load_task(cell.resolved.task, tokenizer, seed=cell.seed)
