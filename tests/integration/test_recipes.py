"""Recipes through a running service. tests/training trains all of them; ``make smoke`` sends all of them here."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.recipes import smoke
from opd_core.recipes import load, names
from opd_core.spec import MethodSpec
from tests.cli.running import Running

# Together they choose something in every variable and need everything that a method may need.
FEW = ["exopd", "gae-cr-opd", "reopold", "scope", "sft"]


@pytest.mark.parametrize("variable", MethodSpec.model_fields)
def test_the_few_touch_every_variable(variable: str) -> None:
    default = getattr(MethodSpec(), variable)
    assert any(getattr(load(name).method, variable) != default for name in FEW)


def test_the_few_need_what_all_need() -> None:
    def needs(some: list[str]) -> set[str]:
        return {need for name in some for need in load(name).needs}

    assert needs(FEW) == needs(names())


@pytest.mark.service
def test_recipes_through_the_service(running: Running) -> None:
    spec = running.spec()
    base: dict[str, Any] = {key: spec[key] for key in ("student", "teacher", "task")}
    base["task"] = base["task"] | {"eval_examples": 0, "demonstration_column": "answer"}
    found = {row["name"]: row["problem"] for row in smoke(running.client, FEW, base, steps=3)}
    assert found == dict.fromkeys(FEW)


KINDS: dict[str, dict[str, Any]] = {
    "average": {
        "teacher": {"self": {"weights": "ema", "decay": 0.9}, "context": "{answer} = {prompt}"},
        "rollout": {"replay": {"share": 0.5, "max_age": 2}, "prefix": {"of": "data"}},
    },
    "several": {
        "teacher": {"mixture": [{"self": {"weights": "initial"}, "tags": ["7"]}, {"model": "demo/teacher"}]},
        "rollout": {"written_by": {"student": 0.5, "teacher": 0.3, "data": 0.2}},
    },
}


@pytest.mark.service
@pytest.mark.parametrize("kind", KINDS)
def test_teachers_and_states_through_the_service(running: Running, kind: str) -> None:
    spec, changes = running.spec(), KINDS[kind]
    teacher = {**changes["teacher"]}
    if "mixture" in teacher:
        teacher["mixture"] = [teacher["mixture"][0], spec["teacher"]]
    spec |= {
        "teacher": teacher,
        "rollout": {"prompts_per_step": 4, "samples_per_prompt": 2, "max_new_tokens": 8, **changes["rollout"]},
        "task": spec["task"] | {"demonstration_column": "answer", "tag_column": "digit"},
        "schedule": {"steps": 3, "evaluate_every": 0, "checkpoint_every": 0},
    }
    job = running.client.wait(running.client.submit(spec).id, timeout_s=120, poll_s=0.2)
    assert job.status == "succeeded", job.error
    metrics = running.client.metrics(job.id)
    assert len(metrics.steps) >= 3
    assert running.client.report(job.id).budget["teacher_tokens"] > 0
