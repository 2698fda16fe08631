"""Questions about a trained run: planned again from its records, and tried on a prompt."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from opd_core import recipes
from opd_core.runs import records
from opd_core.runs.artifacts import START, RunFiles
from opd_core.runs.questions import answer_file, material_file
from opd_core.spec import JobSpec, UserError
from opd_core.training import checkpoint
from opd_core.training.run import train
from opd_core.training.try_prompt import try_prompt
from opd_core.training.what_if import what_if

ASK = {"prompt": "3 + 4 =", "max_new_tokens": 6, "temperature": 1.0, "seed": 0, "checkpoint": None}


def quiet(message) -> None:
    pass


@pytest.fixture
def trained(tiny_spec, tmp_path):
    """recipe -> (files of its run, its resolved spec)."""

    def make(recipe: str, **sections):
        spec = recipes.resolve(tiny_spec(recipe=recipe, **sections))
        train(spec, tmp_path / "run", emit=quiet)
        return RunFiles(tmp_path / "run"), spec

    return make


def ask(files, spec, step, method, sequences=(0, 1, 2)):
    files.write_bytes(material_file("q"), records.encode(records.read_step(files, step)))
    request = {"step": step, "method": method.model_dump(mode="json"), "sequences": list(sequences)}
    return what_if(files, spec, "q", request)


@pytest.mark.parametrize("recipe", ["gae-cr-opd", "tip", "exopd", "random-half", "kdrl"])
def test_a_step_of_a_real_run_comes_out_as_it_was_trained(recipe, trained):
    """Every sequence of the step was recorded, so even the gates over the batch are the run's own."""
    telemetry = {"sequences_per_step": 64, "top_k": 64, "probe_states": 4}
    files, spec = trained(recipe, telemetry=telemetry)
    for step in (1, 4):
        answer = ask(files, spec, step, spec.method_spec(), range(12))
        assert len(answer["rows"]) == 12
        for row in answer["rows"]:
            recorded, plan = row["recorded"], row["plan"]
            assert plan["gate_names"] == recorded["gate_names"]
            for name in ("gates", "coefficients", "advantages", "returns"):
                assert plan[name] == pytest.approx(recorded[name], rel=1e-3, abs=1e-4), name
            assert plan["route_ids"] == recorded["route_ids"]
        assert not answer["replanned"]["gate"]
        assert not answer["replanned"]["coefficient"]


def test_only_the_sequences_that_were_asked_for_are_answered(trained):
    files, spec = trained("forward-kl")
    answer = ask(files, spec, 2, recipes.load("cr-opd").method, [1])
    assert [row["recorded"]["n"] for row in answer["rows"]] == [1]
    with pytest.raises(UserError, match="sequences: the student wrote nothing"):
        ask(files, spec, 2, recipes.load("cr-opd").method, [9])


def test_a_method_that_needs_what_was_not_recorded_is_refused_in_a_sentence(trained):
    files, spec = trained("forward-kl")
    with pytest.raises(UserError, match="needs the student at the start of the run") as refused:
        ask(files, spec, 2, recipes.load("apo").method)
    assert refused.value.param == "method"


def test_records_of_an_earlier_version_are_planned_with_what_the_spec_says(trained):
    files, spec = trained("tml-opd", telemetry={"sequences_per_step": 12, "top_k": 4, "probe_states": 0})
    rows = [{**row, "batch": None, "logp_behaviour": None} for row in records.read_step(files, 2)]
    files.write_bytes(material_file("old"), records.encode(rows))
    request = {"step": 2, "method": spec.method_spec().model_dump(mode="json"), "sequences": [0]}
    answer = what_if(files, spec, "old", request)
    assert answer["rows"][0]["plan"]["coefficients"] == pytest.approx(rows[0]["coefficients"], abs=1e-5)
    (reason,) = answer["replanned"]["coefficient"]  # the recipe weighs by importance
    assert "sampled was not recorded" in reason


@pytest.mark.parametrize("recipe", ["forward-kl", "gae-cr-opd", "kdrl", "exopd", "tip"])
def test_a_prompt_is_written_to_scored_and_planned(recipe, trained):
    files, spec = trained(recipe)
    answer = try_prompt(files, spec, ASK, quiet)
    newest = checkpoint.names(files)[0]
    assert (answer["checkpoint"], answer["step"]) == (newest, 4)
    row = answer["row"]
    assert row["prompt"] == "3 + 4 ="
    assert 1 <= row["length"] <= 6
    assert len(row["logp_student"]) == len(row["student_top_ids"]) == len(row["coefficients"]) == row["length"]
    assert row["log_ratio"] == pytest.approx(
        [a - b for a, b in zip(row["logp_teacher"], row["logp_student"], strict=True)], abs=1e-5
    )
    assert row["probe_ids"] == [None] * row["length"]
    assert (row["values"] is None) == (recipe != "gae-cr-opd")
    assert bool(answer["notes"]) == (recipe == "kdrl")
    assert bool(answer["approximate"]["gate"]) == (recipe == "tip")
    records.decode(records.encode([{**row, "batch": None}]))


def test_a_prompt_may_be_tried_on_an_older_checkpoint_greedily_and_again(trained):
    files, spec = trained("forward-kl")
    old = checkpoint.names(files)[1]
    greedy = ASK | {"temperature": 0.0, "checkpoint": old}
    first, second = (try_prompt(files, spec, greedy, quiet) for _ in range(2))
    assert (first["checkpoint"], first["step"]) == (old, 2)
    assert first == second
    assert first["row"]["token_ids"][0] == first["row"]["student_top_ids"][0][0]
    assert first["row"] != try_prompt(files, spec, ASK | {"temperature": 0.0}, quiet)["row"]


def test_before_the_first_checkpoint_the_start_of_the_run_answers(tiny_spec, tmp_path):
    answer = try_prompt(RunFiles(tmp_path), recipes.resolve(tiny_spec()), ASK, quiet)
    assert (answer["checkpoint"], answer["step"]) == (None, 0)


@pytest.mark.parametrize(
    ("changes", "param", "sentence"),
    [
        ({"prompt": "3 + 4 = " * 60}, "prompt", "tokens, and 1 to"),
        ({"checkpoint": "step-000009.a1"}, "checkpoint", "is not stored"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_a_sentence(changes, param, sentence, tiny_spec, tmp_path):
    with pytest.raises(UserError, match=sentence) as refused:
        try_prompt(RunFiles(tmp_path), recipes.resolve(tiny_spec()), ASK | changes, quiet)
    assert refused.value.param == param


def run_process(tmp_path, question):
    file = tmp_path / "question.json"
    file.write_text(json.dumps(question))
    command = ["-m", "opd_core.training.answer", "--question", str(file), "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_process_answers_into_the_run_directory(tiny_spec, tmp_path):
    spec: JobSpec = recipes.resolve(tiny_spec())
    question = {"id": "q", "kind": "probe", "request": ASK, "spec": spec.model_dump(mode="json")}
    code, said = run_process(tmp_path, question)
    assert code == 0
    assert [message["type"] for message in said] == ["phase"] * len(said)
    assert RunFiles(tmp_path / "run").read_json(answer_file("q"))["row"]["prompt"] == "3 + 4 ="
    code, said = run_process(tmp_path, question | {"id": "r", "request": ASK | {"checkpoint": "nothing"}})
    assert code == 2
    assert said[-1]["error"]["param"] == "checkpoint"
    assert not RunFiles(tmp_path / "run").exists(answer_file("r"))


@pytest.mark.parametrize("kind", ["tags", "data"])
def test_a_prompt_of_ones_own_is_nobodys_in_particular(kind, tiny_spec, tiny_world, tmp_path):
    """Teachers that speak for tags all read it; it comes from no data."""
    task = {**tiny_spec().task.model_dump(exclude_unset=True), "tag_column": "digit", "demonstration_column": "answer"}
    two = [{"model": str(tiny_world.teacher), "tags": ["7"]}, {"model": str(tiny_world.student), "tags": ["8"]}]
    changes = {"teacher": {"mixture": two}} if kind == "tags" else {"recipe": "sft"}
    answer = try_prompt(RunFiles(tmp_path), recipes.resolve(tiny_spec(task=task, **changes)), ASK, quiet)
    numbers = answer["row"]["logp_teacher"]
    assert numbers
    assert all(math.isfinite(value) for value in numbers)


def test_a_fork_is_tried_from_where_it_began(tiny_spec, tmp_path):
    """Its student before the first checkpoint, and itself as its teacher, are the other run's student."""
    first = recipes.resolve(tiny_spec(optimizer={"lr": 0.05, "warmup_steps": 0}))
    train(first, tmp_path / "first", emit=quiet)
    fork = recipes.resolve(tiny_spec(**{"from": {"job": "job_1"}}, teacher={"self": {"weights": "initial"}}))
    files = RunFiles(tmp_path / "fork")
    name = checkpoint.names(RunFiles(tmp_path / "first"))[0]
    files.adopt(RunFiles(tmp_path / "first"), f"checkpoints/{name}", START, folder="student")
    row = try_prompt(files, fork, ASK, quiet)["row"]
    assert max(map(abs, row["log_ratio"])) < 1e-4
    at_first = try_prompt(RunFiles(tmp_path / "first"), first, ASK, quiet)["row"]
    assert row["token_ids"] == at_first["token_ids"]
    plain = recipes.resolve(tiny_spec())
    (tmp_path / "plain").mkdir()
    assert try_prompt(RunFiles(tmp_path / "plain"), plain, ASK, quiet)["row"]["token_ids"] != row["token_ids"]
