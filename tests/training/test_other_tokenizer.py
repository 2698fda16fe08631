"""A run whose teacher has another tokenizer: it learns, says what was compared, resumes, and refuses what cannot be."""

from __future__ import annotations

import base64
import json
import math

import pytest
from safetensors.torch import load_file

from opd_core.diagnostics.recorded import Recorded
from opd_core.diagnostics.records import BatchFacts
from opd_core.diagnostics.replan import replan
from opd_core.recipes import resolve
from opd_core.runs import records
from opd_core.runs.artifacts import RunFiles
from opd_core.spec import UserError
from opd_core.training.run import train
from opd_core.training.step import gate_seed
from opd_core.training.try_prompt import try_prompt
from tests.tokenizers import other_model, shuffled_model
from tests.training.test_run import same_weights, stop_after

METHODS = ["forward-kl", "vopd", "gae-opd", "tip", "kdrl"]


@pytest.fixture(scope="module")
def teachers(tiny_world):
    """The tiny teacher with shuffled ids; one that merges other digits."""
    sums = [f"{a} + {b} = {a + b}" for a in range(12) for b in range(12)]
    return {
        "shuffled": shuffled_model(tiny_world.teacher, tiny_world.root / "shuffled"),
        "other": other_model(tiny_world.root / "other", corpus=sums, tokens=280),
    }


@pytest.fixture
def spec_of(tiny_spec, teachers):
    def make(teacher="other", *, min_aligned=0.05, steps=4, **sections):
        return tiny_spec(
            **{
                "teacher": {"model": str(teachers[teacher]), "tokenizer": {"min_aligned": min_aligned}},
                "optimizer": {"lr": 1e-3, "warmup_steps": 0},
                "schedule": {"steps": steps, "evaluate_every": 2, "checkpoint_every": 2},
                **sections,
            }
        )

    return make


def run(spec, out, **options):
    said: list[dict] = []
    report = train(spec, out, emit=said.append, **options)
    return report, [m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0], said


@pytest.mark.parametrize("recipe", METHODS)
def test_it_trains_and_resumes_bit_for_bit(recipe, spec_of, tmp_path):
    spec = spec_of(recipe=recipe)
    report, metrics, said = run(spec, tmp_path / "whole")
    assert all(math.isfinite(value) for values in metrics for value in values.values())
    assert all(values["grad_norm"] > 0 for values in metrics)
    for values in metrics:
        assert 0.05 < values["aligned"] < 1.0
        assert 0.0 < values["aligned_teacher_mass"] < 1.0
        assert 0.0 < values["aligned_student_mass"] <= 1.0
    assert any("the teacher has another tokenizer" in sentence for sentence in report["warnings"])
    realised = report["checklist"]["tokenizer"]["realised"]
    assert realised["aligned"] == pytest.approx(sum(values["aligned"] for values in metrics) / len(metrics))
    assert report["models"]["teacher"]["shared_tokens"] > 10
    (event,) = [message for message in said if message.get("name") == "aligned"]
    assert event["data"]["aligned"] > 0.05
    stop_after(2, spec, tmp_path / "halves")
    run(spec, tmp_path / "halves", attempt=2)
    assert same_weights(tmp_path / "whole", tmp_path / "halves")


def test_telemetry_changes_no_weights_and_records_what_was_silenced(spec_of, tmp_path):
    _, _, said = run(spec_of(), tmp_path / "with")
    run(spec_of(telemetry={"sequences_per_step": 0}), tmp_path / "without")
    weights = [load_file(tmp_path / name / "student" / "model.safetensors") for name in ("with", "without")]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert any(message["type"] == "records" for message in said)


def test_a_teacher_in_other_ids_teaches_what_it_taught(spec_of, tiny_spec, tmp_path):
    """The student comes as near to the tiny teacher through shuffled ids as with the tokenizer that both have."""
    common = {
        "rollout": {"prompts_per_step": 24, "samples_per_prompt": 1, "max_new_tokens": 8},
        "optimizer": {"lr": 1e-2, "warmup_steps": 0},
        "schedule": {"steps": 12, "evaluate_every": 0, "checkpoint_every": 0},
        "telemetry": {"sequences_per_step": 0},
    }
    _, through, _ = run(spec_of("shuffled", **common), tmp_path / "through")
    _, plain, _ = run(tiny_spec(**common), tmp_path / "plain")
    assert through[-1]["kl"] < 0.7 * through[0]["kl"]
    assert plain[-1]["kl"] < 0.7 * plain[0]["kl"]
    assert through[-1]["kl"] == pytest.approx(plain[-1]["kl"], rel=0.5)


def test_too_few_aligned_tokens_end_the_job_at_its_start(spec_of, tmp_path):
    with pytest.raises(UserError, match="min_aligned: 1 is not reached") as raised:
        run(spec_of(min_aligned=1.0), tmp_path / "out")
    assert (raised.value.code, raised.value.param) == (
        "tokenizers_too_different",
        "teacher.tokenizer.min_aligned",
    )


def test_without_the_field_other_tokens_are_refused_and_the_field_is_named(spec_of, tmp_path, teachers):
    spec = spec_of(teacher="other")
    spec = spec.model_copy(update={"teacher": spec.teacher.model_copy(update={"tokenizer": None})})
    with pytest.raises(UserError, match=r"teacher\.tokenizer") as raised:
        run(spec, tmp_path / "out")
    assert raised.value.code == "different_vocabularies"


def test_a_prompt_of_ones_own_is_read_by_the_teacher_in_its_words(spec_of, tmp_path):
    spec = spec_of()
    run(spec, tmp_path / "out")
    request = {"prompt": "3 + 4 =", "max_new_tokens": 6, "temperature": 0.0, "seed": 0, "checkpoint": None}
    answer = try_prompt(RunFiles(tmp_path / "out"), spec, request, lambda message: None)
    assert answer["row"]["gate_names"][-1] == "aligned"
    assert json.dumps(answer["row"])


@pytest.mark.parametrize("recipe", ["forward-kl", "tml-opd"])
def test_a_recorded_step_is_planned_again_as_it_was(recipe, spec_of, tmp_path):
    """With the whole vocabulary recorded: the same coefficients and forces, and silence in the same places."""
    spec = resolve(spec_of(recipe=recipe, telemetry={"sequences_per_step": 12, "top_k": 64}))
    _, _, said = run(spec, tmp_path / "out")
    first = next(message for message in said if message["type"] == "records")
    rows = records.decode(base64.b64decode(first["payload"]))
    recorded = Recorded(rows, BatchFacts.read(rows[0]["batch"]))
    own = spec.method_spec()
    found = replan(recorded, own=own, method=own, gate_seed=gate_seed(spec.seed, 1))
    silent = 0
    for row, again in zip(rows, found.rows, strict=True):
        assert again["plan"]["gates"] == row["gates"]
        assert again["plan"]["coefficients"] == pytest.approx(row["coefficients"], abs=1e-5)
        aligned = [weights[row["gate_names"].index("aligned")] for weights in row["gate_weights"]]
        for is_aligned, force in zip(aligned, again["force_replanned"], strict=True):
            assert is_aligned or not any(force)
            silent += not is_aligned
    assert silent > 0
