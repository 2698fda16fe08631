"""Specs: what is refused, and the sentence that says so."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from opd_core.spec import JobSpec, MethodSpec, ModelSpec, describe

MINIMAL = {
    "name": "x",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
}


def refused(**changes) -> str:
    data = {**MINIMAL, **changes}
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(data)
    return str(describe(caught.value, data=data))


def test_the_minimal_spec_is_complete():
    spec = JobSpec.model_validate(MINIMAL)
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"rollout": {"temperatur": 1}}, "rollout.temperatur", "no such field"),
        ({"rollout": {"temperature": 0}}, "rollout.temperature", "greater than 0"),
        ({"rollout": {"temperature": float("nan")}}, "rollout.temperature", "finite"),
        ({"schedule": {"steps": 0}}, "schedule.steps", "(got 0)"),
        ({"schedule": {"until": {}}}, "schedule.until", "exactly one of student_tokens"),
        ({"schedule": {"until": {"flops": 1e9, "wall_s": 5}}}, "schedule.until", "not flops and wall_s"),
        ({"schedule": {"until": {"student_tokens": 0}}}, "schedule.until.student_tokens", "(got 0)"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas", "[0, 1)"),
        ({"task": {}}, "task", "exactly one of task.name"),
        ({"task": {"name": "demo/word-problems", "dataset": "/x"}}, "task", "exactly one of task.name"),
        (
            {"task": {"name": "demo/word-problems", "verifier": {"kind": "regex"}}},
            "task.verifier",
            "needs verifier.pattern",
        ),
        (
            {"task": {"name": "demo/word-problems", "verifier": {"kind": "regex", "pattern": "("}}},
            "task.verifier",
            "not a regular expression",
        ),
        ({"batching": {"micro_tokens": 0}}, "batching.micro_tokens", "at least 1"),
        ({"resources": {"threads": 0}}, "resources.threads", "between 1 and 1024"),
        ({"name": "<script>"}, "name", "pattern"),
        ({"recipe": "../../etc/passwd"}, "recipe", "pattern"),
        ({"surprise": 1}, "surprise", "no such field"),
    ],
)
def test_a_mistake_is_one_sentence_with_field_and_allowed(changes, where, words):
    sentence = refused(**changes)
    assert sentence.startswith(f"{where}")
    assert words in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "model", ["../student", "/models/../etc", "a/b/c", "https://example.org/model", "", "a\\b", ".hidden", "/x\x00y"]
)
def test_model_references_cannot_leave_their_place(model):
    with pytest.raises(ValidationError):
        ModelSpec(model=model)


@pytest.mark.parametrize("model", ["demo/student", "Qwen/Qwen3-0.6B", "gpt2", "/models/my-student"])
def test_good_model_references(model):
    assert ModelSpec(model=model).model == model


@given(st.text(max_size=40))
def test_any_accepted_model_reference_is_harmless_as_a_path(text):
    try:
        reference = ModelSpec(model=text).model
    except ValidationError:
        return
    assert ".." not in reference.split("/")
    assert "\x00" not in reference
    assert reference.startswith("/") or reference[0].isalnum()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"objective": {"route": "direct"}, "support": {"kind": "sampled"}}, "expected gradient is zero"),
        ({"objective": {"route": "log_ratio"}, "support": {"kind": "full"}}, "divergence: reverse_kl"),
    ],
)
def test_methods_that_cannot_learn_are_refused_with_the_reason(method, words):
    with pytest.raises(ValidationError, match=words):
        MethodSpec.model_validate(method)


def test_the_ends_of_the_jsd_family_warn():
    method = MethodSpec.model_validate({"objective": {"route": "direct", "divergence": "jsd", "beta": 1.0}})
    assert "reverse_kl" in method.warnings()[0]
    assert MethodSpec().warnings() == []


def test_spec_and_recipes_load_no_torch():
    code = "import sys, opd_core.spec, opd_core.recipes as r; r.load('gkd'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
