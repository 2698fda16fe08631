"""Every kind of teacher and of state: the student learns from it, the run says so, and resumes bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from opd_core.training.run import train
from tests.training.test_run import same_weights, stop_after

OTHERS = {"student": 0.5, "teacher": 0.5}
TEACHERS = {
    "initial": {"self": {"weights": "initial"}, "context": "{demonstration} = {prompt}"},
    "current": {"self": {"weights": "current"}, "context": "{answer} = {prompt}"},
    "ema": {"self": {"weights": "ema", "decay": 0.5}, "context": "{answer} = {prompt}"},
    "ensemble": {"mixture": [{"model": "TEACHER"}, {"self": {"weights": "ema", "decay": 0.9}, "weight": 0.5}]},
    "by tag": {"mixture": [{"model": "TEACHER", "tags": ["7"]}, {"model": "STUDENT", "tags": ["8"]}]},
}
STATES = {
    "teacher writes": {"written_by": OTHERS},
    "data writes": {"written_by": {"student": 0.5, "data": 0.5}},
    "both write": {"teacher_mix": 0.3},
    "data begins": {"prefix": {"of": "data", "share": 0.5, "until": 1.0}},
    "teacher begins": {"prefix": {"of": "teacher", "share": 0.5, "until": 1.0}},
    "replay": {"replay": {"share": 0.5, "max_age": 2}},
}
# Whose student trains an adapter; a teacher of the same name as above.
ADAPTED = {"adapter": None, "adapter under its start": "initial", "adapter's average": "ema"}


def spec_of(tiny_spec, tiny_world, name, steps=4):
    teacher, rollout = TEACHERS.get(ADAPTED.get(name) or name), STATES.get(name, {})
    changes = {
        "task": {
            **tiny_spec().task.model_dump(exclude_unset=True),
            "demonstration_column": "answer",
            "tag_column": "digit",
        },
        "rollout": {"prompts_per_step": 6, "samples_per_prompt": 2, "max_new_tokens": 8, **rollout},
        "optimizer": {"lr": 1e-3, "warmup_steps": 0},
        "schedule": {"steps": steps, "evaluate_every": 0, "checkpoint_every": 2},
    }
    if name in ADAPTED:
        changes["student"] = {"model": str(tiny_world.student), "lora": {"rank": 4}}
    if teacher is not None:
        changes["teacher"] = filled(teacher, tiny_world)
    return tiny_spec(**changes)


def filled(value, tiny_world):
    if isinstance(value, dict):
        return {key: filled(inner, tiny_world) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, tiny_world) for inner in value]
    return {"TEACHER": str(tiny_world.teacher), "STUDENT": str(tiny_world.student)}.get(value, value)


def run(spec, out, **options):
    said: list[dict] = []
    report = train(spec, out, emit=said.append, **options)
    return report, [m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0], said


@pytest.mark.parametrize("name", [*TEACHERS, *STATES, *ADAPTED])
def test_it_trains_and_resumes_bit_for_bit(name, tiny_spec, tiny_world, tmp_path):
    spec = spec_of(tiny_spec, tiny_world, name)
    whole, metrics, _ = run(spec, tmp_path / "whole")
    assert all(math.isfinite(value) for values in metrics for value in values.values())
    assert all(values["grad_norm"] > 0 for values in metrics)
    stop_after(2, spec, tmp_path / "halves")
    halves, _, again = run(spec, tmp_path / "halves", attempt=2)
    assert [message["step"] for message in again if message["type"] == "progress"] == [3, 4]
    assert same_weights(tmp_path / "whole", tmp_path / "halves")
    for key in ("student_tokens", "teacher_written_tokens", "teacher_tokens", "flops"):
        assert halves["budget"][key] == whole["budget"][key]


def test_an_adapter_is_all_that_moves_and_is_exported_merged_or_alone(tiny_spec, tiny_world, tmp_path):
    spec = spec_of(tiny_spec, tiny_world, "adapter")
    report, _, _ = run(spec, tmp_path / "merged")
    assert report["models"]["student"]["adapter_parameters"] < 0.3 * report["models"]["student"]["parameters"]
    before = load_file(tiny_world.student / "model.safetensors")
    after = load_file(tmp_path / "merged" / "student" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all("_proj" in name for name in changed)
    lora = {**spec.student.model_dump()["lora"], "merge": False}
    spec = spec.model_copy(update={"student": type(spec.student)(model=str(tiny_world.student), lora=lora)})
    run(spec, tmp_path / "alone")
    assert (tmp_path / "alone" / "student" / "adapter_config.json").exists()
    assert not (tmp_path / "alone" / "student" / "model.safetensors").exists()


def test_who_wrote_is_counted(tiny_spec, tiny_world, tmp_path):
    report, metrics, _ = run(spec_of(tiny_spec, tiny_world, "teacher writes"), tmp_path / "a")
    assert 0 < sum(values["rows_teacher"] for values in metrics) / 4 < 1
    assert report["budget"]["teacher_written_tokens"] > 0
    assert report["checklist"]["rollout"]["written_by"] == {"student": 0.5, "teacher": 0.5, "data": 0.0}
    assert report["checklist"]["rollout"]["realised"]["teacher"] == pytest.approx(
        sum(values["rows_teacher"] for values in metrics) / 4
    )
    report, metrics, _ = run(spec_of(tiny_spec, tiny_world, "replay", steps=6), tmp_path / "b")
    assert [values["rows_replayed"] for values in metrics] == [0.0, *[0.5] * 5]
    assert all(1 <= values["rows_age_mean"] * 2 <= 2 for values in metrics[1:])
    # Six prompts in the first step, three fresh ones in each later step.
    assert report["budget"]["student_tokens"] < 8 * 2 * (6 + 5 * 3) + 1


def test_teachers_are_counted_apart_and_evaluated_on_their_own_problems(tiny_spec, tiny_world, tmp_path):
    report, metrics, said = run(spec_of(tiny_spec, tiny_world, "by tag"), tmp_path / "out")
    assert all(values["teacher_0_tokens"] > 0 == values["teacher_1_tokens"] for values in metrics)
    assert all("teacher_0_kl" in values and "teacher_1_kl" not in values for values in metrics)
    told = [m for m in said if m["type"] == "event" and m["name"] == "teacher"]
    assert [event["data"]["problems"] for event in told] == [16]  # nothing is tagged 8
    assert [part.get("tags") for part in report["models"]["teacher"]["mixture"]] == [["7"], ["8"]]


def test_a_plain_run_pays_for_what_it_always_did(tiny_spec, tiny_world, tmp_path):
    """2 per parameter and token for writing and for the teacher, 6 for the update."""
    spec = tiny_spec(schedule={"steps": 2, "evaluate_every": 0, "checkpoint_every": 0})
    report, _, _ = run(spec, tmp_path / "out")
    from opd_core.models import load_model
    from opd_core.spec import ModelSpec

    student, teacher = (
        load_model(ModelSpec(model=str(path)), device="cpu", trainable=False, role="student").flop_parameters
        for path in (tiny_world.student, tiny_world.teacher)
    )
    budget = report["budget"]
    assert budget["flops"] == budget["teacher_tokens"] * (8 * student + 2 * teacher)
    assert budget["teacher_written_tokens"] == 0
