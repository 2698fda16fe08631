"""A whole run on tiny checkpoints: what it leaves, what it says, how it resumes, how it fails."""

from __future__ import annotations

import base64
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from opd_core.recipes import load, names
from opd_core.runs import records
from opd_core.runs.artifacts import START, RunFiles
from opd_core.spec import JobSpec, UserError
from opd_core.training import checkpoint
from opd_core.training.run import Stopped, train


def run(spec: JobSpec, out: Path, **options):
    said: list[dict] = []
    report = train(spec, out, emit=said.append, **options)
    return report, said


def stop_after(step: int, spec: JobSpec, out: Path) -> None:
    """The run's first steps, and its checkpoint."""
    said: list[dict] = []
    with pytest.raises(Stopped):
        train(
            spec,
            out,
            emit=said.append,
            should_stop=lambda: any(m["type"] == "progress" and m["step"] == step for m in said),
        )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "student" / "model.safetensors")


def same_weights(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_leaves_a_model_a_report_and_records(tiny_spec, tmp_path):
    out = tmp_path / "out"
    report, said = run(tiny_spec(), out)
    model = AutoModelForCausalLM.from_pretrained(out / "student")
    tokenizer = AutoTokenizer.from_pretrained(out / "student")
    assert model.config.vocab_size >= len(tokenizer)
    assert report == json.loads((out / "report.json").read_text())
    assert "| student before |" in (out / "report.md").read_text()
    assert {"before", "after", "teacher", "gap_recovered"} == report["accuracy"].keys()
    assert report["budget"]["student_tokens"] > 0
    assert report["budget"]["teacher_tokens"] > report["budget"]["student_tokens"]
    assert report["budget"]["wall_s"] == pytest.approx(sum(report["budget"]["wall_s_by_phase"].values()))
    assert report["spec"]["method"]["objective"]["divergence"] == "forward_kl"
    assert not list(out.rglob("*.tmp"))
    assert not list(out.rglob("*.pt"))
    assert not list(out.rglob("*.bin"))

    kinds = [message["type"] for message in said]
    assert kinds[-1] == "result"
    assert [m["step"] for m in said if m["type"] == "progress"] == [1, 2, 3, 4]
    assert [m["step"] for m in said if m["type"] == "metrics" and "accuracy" in m["values"]] == [0, 2, 4]
    assert [m["phase"] for m in said if m["type"] == "phase"][-2:] == ["training", "finalizing"]
    json.dumps(said, allow_nan=False)

    live = [row for m in said if m["type"] == "records" for row in records.decode(base64.b64decode(m["payload"]))]
    assert live == records.read_steps(RunFiles(out), 1, 4)
    vocabulary = json.loads((out / "vocabulary.json").read_text())
    for row in live:
        assert row["length"] == len(row["token_ids"]) == len(row["log_ratio"]) == len(row["student_top_ids"])
        for r, s, t in zip(row["log_ratio"], row["logp_student"], row["logp_teacher"], strict=True):
            assert r == pytest.approx(t - s, abs=1e-5)
        assert row["returns"][0] == pytest.approx(sum(row["log_ratio"]), abs=1e-4)
        assert all(0 <= token < len(vocabulary) for top in row["student_top_ids"] for token in top)
    probed = [
        (ids, realised, token)
        for row in live
        for ids, realised, token in zip(row["probe_ids"], row["probe_realised"], row["token_ids"], strict=True)
        if ids is not None
    ]
    assert probed
    assert all(token in ids and any(realised) for ids, realised, token in probed)


def led_by_verifier(recipe):
    """The verifier says in which direction; the teacher says how far at most."""
    rules = load(recipe).method.regularizers
    return any(r.kind == "reward_sign" or (r.kind == "reward" and r.distillation_weight == 0) for r in rules)


def task_of(recipe, tiny_spec):
    """The tiny task with worked solutions; for the verifier's recipes naming a 7 is right.

    An untrained student then has right and wrong answers on any machine.
    """
    task = {**tiny_spec().task.model_dump(exclude_unset=True), "demonstration_column": "answer"}
    seven = {"answer_column": "digit", "verifier": {"kind": "regex", "pattern": "7"}}
    return {**task, **(seven if led_by_verifier(recipe) else {})}


def of_recipe(recipe, tiny_spec, steps):
    """A run of that recipe on the tiny world; a critic is heard from the second step on."""
    heard = {"credit": {"critic": {"warmup_steps": 1}}} if "critic" in load(recipe).needs else {}
    return tiny_spec(
        recipe=recipe,
        method=heard if steps < 10 else {},
        task=task_of(recipe, tiny_spec),
        rollout={"prompts_per_step": 8, "samples_per_prompt": 2, "max_new_tokens": 8},
        optimizer={"lr": 5e-3, "warmup_steps": 2},
        schedule={"steps": steps, "evaluate_every": 0, "checkpoint_every": 0},
        telemetry={"sequences_per_step": 0 if steps > 10 else 2},
    )


@pytest.mark.parametrize("recipe", names())
def test_every_recipe_trains(recipe, tiny_spec, tmp_path):
    _, said = run(of_recipe(recipe, tiny_spec, 3), tmp_path / "out")
    metrics = [m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0]
    assert len(metrics) == 3
    assert all(math.isfinite(value) for values in metrics for value in values.values())
    assert any(values["grad_norm"] > 0 for values in metrics)


# One of every variable, or two; the others have the same code in other combinations, and their turn in the long form.
TAUGHT = (
    *(
        "forward-kl",
        "reverse-kl",
        "tml-opd",
        "topk-tail",
        "vopd",
        "clip-opd",
        "aopd",
        "gae-cr-opd",
        "tip",
        "prefix-opd",
    ),
    *("mopd", "kdrl"),
)


@pytest.mark.parametrize(
    "recipe", [name if name in TAUGHT else pytest.param(name, marks=pytest.mark.long) for name in names()]
)
def test_every_recipe_teaches(recipe, tiny_spec, tmp_path):
    """The KL to the teacher falls on the student's own rollouts: per token, or per sequence where that is credited."""
    _, said = run(of_recipe(recipe, tiny_spec, 60), tmp_path / "out")
    metrics = [m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0]
    if led_by_verifier(recipe):
        rewards = [values["rollout_accuracy"] for values in metrics]
        assert sum(rewards[-5:]) > 1.2 * sum(rewards[:5])
        return
    if recipe == "sft":  # learns from the data, whatever the teacher says
        assert sum(values["loss"] for values in metrics[-5:]) < 0.8 * sum(values["loss"] for values in metrics[:5])
        return
    over_time = load(recipe).method.credit.discount > 0
    apart = [values["kl"] * (values["length_mean"] if over_time else 1.0) for values in metrics]
    assert sum(apart[-5:]) < 0.8 * sum(apart[:5])


def test_a_collapse_is_reported(tiny_spec, tmp_path):
    """Undiscounted log-ratio returns make ending early pay: this run ends its answers, and says so."""
    sections = short("return-to-go", 60)
    sections |= {"rollout": {"prompts_per_step": 8, "samples_per_prompt": 2, "max_new_tokens": 8}}
    report, said = run(tiny_spec(**sections), tmp_path / "out")
    (finding,) = report["health"]
    assert finding["check"] == "early_stopping"
    assert finding["sentence"] in report["warnings"]
    (event,) = [m for m in said if m["type"] == "event" and m["name"] == "health"]
    assert event["level"] == "warning"
    assert event["message"] == finding["sentence"]
    assert event["data"] == {name: finding[name] for name in ("check", "since_step", "value")}


def short(recipe: str, steps: int, method: dict | None = None, **schedule) -> dict:
    """A run of a few steps without evaluation or telemetry."""
    return {
        "recipe": recipe,
        "method": method or {},
        "optimizer": {"lr": 5e-3, "warmup_steps": 1},
        "schedule": {"steps": steps, "evaluate_every": 0, "checkpoint_every": 0, **schedule},
        "telemetry": {"sequences_per_step": 0},
    }


def gae(**critic) -> dict:
    return {"credit": {"estimator": "gae", "gamma": 0.9, "lam": 0.5, "critic": {"warmup_steps": 1, **critic}}}


@pytest.mark.parametrize("hidden", [0, 64])
def test_a_critic_that_is_not_asked_changes_no_bit_of_the_student(hidden, tiny_spec, tmp_path):
    """gamma 0 and form split: whatever the critic says, the update is vOPD's, over several steps and clippings."""
    run(tiny_spec(**short("vopd", 6)), tmp_path / "off")
    method = gae(form="split", warmup_steps=0, hidden=hidden)
    method["credit"] |= {"gamma": 0.0, "baseline": "none"}
    _, said = run(tiny_spec(**short("vopd", 6, method)), tmp_path / "on")
    assert same_weights(tmp_path / "off", tmp_path / "on")
    learned = [m["values"]["critic_grad_norm"] for m in said if m["type"] == "metrics" and m["step"] > 0]
    assert len(learned) == 6
    assert all(norm > 0 for norm in learned)


def test_the_critic_learns_before_it_is_heard(tiny_spec, tmp_path):
    """During its warm-up the credit is immediate, afterwards it is not. At a student that rests its error falls."""
    sections = short("tml-opd", 60, gae(form="split", warmup_steps=3))
    sections |= {"optimizer": {"lr": 1e-12}, "rollout": {"prompts_per_step": 32, "max_new_tokens": 8}}
    _, said = run(tiny_spec(**sections), tmp_path / "out")
    metrics = [m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0]
    temporal = [values["size_temporal"] for values in metrics]
    assert max(temporal[:3]) < 1e-6 < min(temporal[3:])
    losses = [values["critic_loss"] for values in metrics]
    assert sum(losses[-10:]) < 0.7 * sum(losses[5:15])
    exported = load_file(tmp_path / "out" / "student" / "model.safetensors")
    assert not [name for name in exported if "critic" in name or "inner" in name]


def test_telemetry_and_evaluation_do_not_touch_the_weights(tiny_spec, tmp_path):
    run(tiny_spec(), tmp_path / "on")
    quiet = tiny_spec(
        telemetry={"sequences_per_step": 0},
        schedule={"steps": 4, "evaluate_every": 0, "checkpoint_every": 0},
    )
    run(quiet, tmp_path / "off")
    assert same_weights(tmp_path / "on", tmp_path / "off")


def test_bfloat16_computes_over_float32_weights(tiny_spec, tmp_path):
    spec = tiny_spec(resources={"precision": "bfloat16"}, optimizer={"lr": 1e-6, "warmup_steps": 0})
    before = AutoModelForCausalLM.from_pretrained(spec.student.model).state_dict()
    report, _ = run(spec, tmp_path / "out")
    after = weights(tmp_path / "out")
    assert report["versions"]["precision"] == "bfloat16"
    assert all(value.dtype == torch.float32 for value in after.values())
    # A bfloat16 weight would not notice four updates of 1e-6.
    assert all(not torch.equal(before[name], value) for name, value in after.items() if value.ndim == 2)


def test_a_start_that_is_damaged_or_gone_is_named(tiny_spec, tmp_path):
    run(tiny_spec(), tmp_path / "first")
    files = RunFiles(tmp_path / "second")
    spec = tiny_spec(**{"from": {"job": "job_1"}})
    with pytest.raises(UserError, match="no copy of that checkpoint"):
        run(spec, files)
    name = checkpoint.names(RunFiles(tmp_path / "first"))[0]
    files.adopt(RunFiles(tmp_path / "first"), f"checkpoints/{name}", START, folder="student")
    run(spec, files)
    weights = tmp_path / "second" / START / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()  # it may be a link to the other run's file
    weights.write_bytes(content)
    with pytest.raises(UserError, match="damaged") as caught:
        run(spec, files)
    assert (caught.value.param, caught.value.code) == ("from", "damaged_start")


def test_what_saves_memory_or_time_does_not_touch_the_weights(tiny_spec, tmp_path):
    run(tiny_spec(), tmp_path / "plain")
    run(tiny_spec(batching={"gradient_checkpointing": True}), tmp_path / "recomputed")
    assert same_weights(tmp_path / "plain", tmp_path / "recomputed")
    rollout = {**tiny_spec().rollout.model_dump(exclude_unset=True), "cache": "fixed"}
    run(tiny_spec(rollout=rollout), tmp_path / "fixed")
    # Written from another cache: the same tokens, whose gradients are added up in the same order.
    assert same_weights(tmp_path / "plain", tmp_path / "fixed")


def test_another_seed_is_another_run(tiny_spec, tmp_path):
    run(tiny_spec(), tmp_path / "0")
    run(tiny_spec(seed=1), tmp_path / "1")
    assert not same_weights(tmp_path / "0", tmp_path / "1")


def test_stopped_and_resumed_ends_with_the_same_bits(tiny_spec, tmp_path):
    spec = tiny_spec(schedule={"steps": 6, "evaluate_every": 2, "checkpoint_every": 4})
    whole, _ = run(spec, tmp_path / "whole")
    stop_after(3, spec, tmp_path / "halves")
    saved = tmp_path / "halves" / "checkpoints" / "step-000003.a1"
    assert (saved / "manifest.json").exists()
    stored = json.loads((saved / "trainer.json").read_text())["budget"]["wall_s_by_phase"]
    halves, again = run(spec, tmp_path / "halves", attempt=2)
    assert [m["step"] for m in again if m["type"] == "progress"] == [4, 5, 6]
    assert same_weights(tmp_path / "whole", tmp_path / "halves")
    assert halves["budget"]["student_tokens"] == whole["budget"]["student_tokens"]
    assert halves["accuracy"] == whole["accuracy"]
    assert halves["self_check"] == whole["self_check"]
    # The clock of training goes on where the checkpoint stopped it, without what loading and evaluating took.
    phases = ("rollout", "teacher", "update", "telemetry")
    spent = sum(stored[phase] for phase in phases)
    first = next(m["values"] for m in again if m["type"] == "metrics" and m["step"] == 4)
    assert first["wall_s"] == pytest.approx(spent + sum(first[f"time_{phase}_s"] for phase in phases))


def test_running_statistics_are_averages_of_what_the_steps_observed(tiny_spec, tmp_path):
    """Decay 0.9, the first observation as it is; without shaping the rewards are the log-ratios."""
    _, said = run(tiny_spec(**short("tml-opd", 5, gae())), tmp_path / "out")
    expected = None
    for values in (m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0):
        observed = values["log_ratio_mean"]
        expected = observed if expected is None else 0.9 * expected + 0.1 * observed
    kept = json.loads((tmp_path / "out" / "checkpoints" / "step-000005.a1" / "trainer.json").read_text())["running"]
    assert kept["reward_mean"] == pytest.approx(expected, rel=1e-5)
    assert kept.keys() == {"reward_mean", "value_mean", "value_std"}


@pytest.mark.parametrize("name", ["student_tokens", "teacher_tokens", "flops"])
def test_a_budget_ends_the_run_and_survives_a_resume(name, tiny_spec, tmp_path):
    """It ends with the step that reaches it; halves have the bits of the whole."""
    _, said = run(tiny_spec(**short("forward-kl", 5)), tmp_path / "free")
    spent = [m["values"][name] for m in said if m["type"] == "metrics" and m["step"] > 0]
    limit = (spent[2] + spent[3]) / 2 if name == "flops" else (spent[2] + spent[3]) // 2
    spec = tiny_spec(**short("forward-kl", 40, until={name: limit}))
    report, said = run(spec, tmp_path / "whole")
    rates = [m["values"]["lr"] for m in said if m["type"] == "metrics" and m["step"] > 0]
    assert report["steps"] == len(rates) < 40
    assert report["budget"][name] >= limit
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 0.5 * rates[1]  # by the steps alone it would have hardly fallen
    assert not [warning for warning in report["warnings"] if "schedule.until" in warning]
    assert json.loads((tmp_path / "whole" / "student" / "manifest.json").read_text())["step"] == report["steps"]

    stop_after(2, spec, tmp_path / "halves")
    halves, _ = run(spec, tmp_path / "halves", attempt=2)
    assert halves["steps"] == report["steps"]
    assert same_weights(tmp_path / "whole", tmp_path / "halves")
    assert run(spec, tmp_path / "halves", attempt=3)[0]["steps"] == report["steps"]  # spent is spent


def test_a_budget_that_is_not_reached_is_said(tiny_spec, tmp_path):
    report, _ = run(tiny_spec(**short("forward-kl", 2, until={"teacher_tokens": 10**6})), tmp_path / "out")
    (warning,) = [warning for warning in report["warnings"] if "schedule.until.teacher_tokens" in warning]
    assert "ended at its 2 steps" in warning
    report, _ = run(tiny_spec(**short("forward-kl", 10**6, until={"wall_s": 0.2})), tmp_path / "timed")
    assert 0 < report["steps"] < 10**6


def test_outcomes_are_kept_problem_by_problem(tiny_spec, tmp_path):
    """Also when the process was lost after the last step, with the evaluation of the end."""
    sections = short("sft", 40, pass_at_k=2) | {"task": task_of("verifier-rl", tiny_spec)}
    report, _ = run(tiny_spec(**sections), tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert len(set(kept["problems"])) == report["task"]["eval_problems"]
    for when in ("before", "after"):
        assert {len(column) for column in kept[when].values()} == {len(kept["problems"])}
        share = sum(kept[when]["correct"]) / len(kept["problems"])
        assert share == report["accuracy"][when]
    assert sum(kept["teacher"]) / len(kept["problems"]) == report["accuracy"]["teacher"]
    assert kept["before"]["correct"] != kept["after"]["correct"]

    (tmp_path / "out" / "report.json").unlink()
    (tmp_path / "out" / "evaluation.json").write_text(json.dumps({**kept, "after": None}))
    run(tiny_spec(**sections), tmp_path / "out", attempt=2)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == kept


def test_pass_at_k_is_asked_with_the_same_numbers_before_and_after(tiny_spec, tmp_path):
    """A learning rate that moves nothing: the samples are the same ones. They change no weight of another run."""
    sections = short("forward-kl", 3, pass_at_k=6)
    sections |= {"task": task_of("verifier-rl", tiny_spec)}
    run(tiny_spec(**sections | {"optimizer": {"lr": 1e-30, "warmup_steps": 0}}), tmp_path / "still")
    kept = json.loads((tmp_path / "still" / "evaluation.json").read_text())
    assert kept["before"]["samples_solved"] == kept["after"]["samples_solved"]
    assert len(set(kept["before"]["samples_solved"])) > 1
    assert all(0 <= solved <= 6 for solved in kept["before"]["samples_solved"])

    report, _ = run(tiny_spec(**sections), tmp_path / "with")
    sections["schedule"]["pass_at_k"] = 0
    other, _ = run(tiny_spec(**sections), tmp_path / "without")
    assert same_weights(tmp_path / "with", tmp_path / "without")
    assert report["budget"]["eval_tokens"] > other["budget"]["eval_tokens"]
    assert json.loads((tmp_path / "without" / "evaluation.json").read_text())["after"]["samples_solved"] is None


RESUMED = {
    "gae": ("tml-opd", {**gae(), "gates": [{"kind": "random", "share": 0.5}]}),
    "critic that shapes the trunk": ("tml-opd", gae(form="value", detach_trunk=False)),
    "reference": ("stable-opd", {}),
    "reward": ("kdrl", {}),
}


@pytest.mark.parametrize("name", RESUMED)
def test_everything_that_a_method_remembers_survives_a_resume(name, tiny_spec, tmp_path):
    """Critic, its optimizer, running statistics, random gates, the reference: bit for bit."""
    spec = tiny_spec(**short(*RESUMED[name][:1], 6, RESUMED[name][1], checkpoint_every=3))
    whole, _ = run(spec, tmp_path / "whole")
    stop_after(3, spec, tmp_path / "halves")
    halves, again = run(spec, tmp_path / "halves", attempt=2)
    assert [m["step"] for m in again if m["type"] == "progress"] == [4, 5, 6]
    assert same_weights(tmp_path / "whole", tmp_path / "halves")
    last = [out / "checkpoints" for out in (tmp_path / "whole", tmp_path / "halves")]
    for file in ("critic.safetensors", "critic_optimizer.safetensors"):
        paths = [folder / f"step-000006.a{attempt}" / file for attempt, folder in enumerate(last, 1)]
        assert [path.exists() for path in paths] == [name in list(RESUMED)[:2]] * 2
        if paths[0].exists():
            left, right = map(load_file, paths)
            assert left.keys() == right.keys()
            assert all(torch.equal(left[key], right[key]) for key in left)
    assert halves["budget"]["flops"] == whole["budget"]["flops"]


def test_the_report_says_what_the_method_really_did(tiny_spec, tmp_path):
    method = {**gae(), "gates": [{"kind": "random", "share": 0.25}], "regularizers": [{"kind": "entropy"}]}
    report, said = run(tiny_spec(**short("tml-opd", 4, method)), tmp_path / "out")
    checklist, metrics = report["checklist"], [m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0]

    def mean(name: str) -> float:
        return pytest.approx(sum(values[name] for values in metrics) / 4)

    (gate,) = checklist["gates"]
    assert gate["kind"] == "random"
    assert gate["realised"]["share"] == mean("gate_random_share")
    assert 0.2 < gate["realised"]["share"] < 0.3
    assert checklist["regularizers"] == report["spec"]["method"]["regularizers"]
    assert checklist["importance"]["realised"]["mean"] == mean("importance_mean")
    assert checklist["credit"]["critic"]["realised"]["explained_variance"] == mean("critic_explained_variance")
    assert checklist["reward"] is None
    assert report["health"] == []

    report, _ = run(tiny_spec(**short("vopd-cr-opd", 2)), tmp_path / "routed")
    checklist = report["checklist"]
    assert 0 < checklist["routing"]["realised"]["triggered"] < 1
    assert checklist["gates"] == []
    assert "critic" not in checklist["credit"]


def test_the_reference_is_the_student_of_the_start_and_its_work_is_counted(tiny_spec, tmp_path, monkeypatch):
    from opd_core.training import step as module

    plain, _ = run(tiny_spec(**short("stable-opd", 4, {"regularizers": [{"kind": "entropy"}]})), tmp_path / "plain")
    apart = []

    def look(_trainer, _step, update, _progress):
        apart.append(float((update.student.hidden - update.feedback.context.reference.hidden).abs().max()))

    monkeypatch.setattr(module, "_recorder", look)
    report, _ = run(tiny_spec(**short("stable-opd", 4)), tmp_path / "out")
    assert apart[0] < 1e-5
    assert apart == sorted(apart)
    assert apart[-1] > 0.01

    def flops_per_token(report: dict) -> float:
        return report["budget"]["flops"] / report["budget"]["teacher_tokens"]

    parameters = report["models"]["student"]["parameters"]
    assert flops_per_token(report) - flops_per_token(plain) == pytest.approx(2 * parameters)
    assert report["checklist"]["models"]["reference"]


def test_rewards_are_the_verifiers_and_checked_once(tiny_spec, tmp_path, monkeypatch):
    from opd_core.training import step as module

    calls, seen = [], []
    verify, context = module.verify, module.feedback_context
    monkeypatch.setattr(module, "verify", lambda *a: calls.append(1) or [i % 3 == 0 for i, _ in enumerate(verify(*a))])
    monkeypatch.setattr(module, "feedback_context", lambda *a, **k: seen.append(k) or context(*a, **k))
    run(tiny_spec(**short("kdrl", 3)), tmp_path / "out")
    assert len(calls) == 3
    for known in seen:
        assert known["reward"].tolist() == [float(i % 3 == 0) for i in range(12)]
        # Six prompts, two samples each, in whatever order their lengths put them.
        assert sorted(known["group"].tolist()) == [i // 2 for i in range(12)]


def test_killed_and_resumed_ends_with_the_same_bits(tiny_spec, tmp_path):
    """kill -9 of the real process between checkpoints; the same command finishes the run."""
    spec = tiny_spec(schedule={"steps": 80, "evaluate_every": 40, "checkpoint_every": 10})
    file = tmp_path / "spec.json"
    file.write_text(spec.model_dump_json())

    def start(out: Path, attempt: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "opd_core.training.main", "--spec", file, "--out", out]
        return subprocess.Popen(
            [*map(str, command), "--attempt", str(attempt)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    with start(tmp_path / "whole", 1) as process:
        assert process.stdout
        last = json.loads(process.stdout.readlines()[-1])
    assert process.returncode == 0
    assert last["type"] == "result"

    with start(tmp_path / "killed", 1) as process:
        assert process.stdout
        for line in process.stdout:
            message = json.loads(line)
            if message["type"] == "progress" and message["step"] >= 25:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL

    with start(tmp_path / "killed", 2) as process:
        assert process.stdout
        messages = [json.loads(line) for line in process.stdout]
    assert process.returncode == 0
    resumed = next(m for m in messages if m["type"] == "event" and m["name"] == "resumed")
    assert resumed["data"]["step"] >= 20
    assert same_weights(tmp_path / "whole", tmp_path / "killed")


def test_sigterm_saves_and_exits_75(tiny_spec, tmp_path):
    spec = tiny_spec(schedule={"steps": 5000, "evaluate_every": 0, "checkpoint_every": 0})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "opd_core.training.main", "--spec", "spec.json", "--out", "out"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line)["type"] == "progress":
                process.terminate()
                break
        rest = [json.loads(line) for line in process.stdout]
    assert process.returncode == 75
    assert rest[-1]["type"] == "checkpoint"
    assert list((tmp_path / "out" / "checkpoints").iterdir())


def test_the_trainer_dies_with_its_supervisor(tiny_spec, tmp_path):
    spec = tiny_spec(schedule={"steps": 100_000, "evaluate_every": 0, "checkpoint_every": 0})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    supervisor = """
import os, subprocess, sys
environment = {**os.environ, "OPD_SUPERVISOR_PID": str(os.getpid())}
child = subprocess.Popen([sys.executable, "-m", "opd_core.training.main", "--spec", "spec.json", "--out", "out"],
                         env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
for line in child.stdout:
    if '"progress"' in line:
        print(child.pid, flush=True)
        break
else:
    sys.exit("the trainer made no step")
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", supervisor], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        if "Z (zombie)" in Path(f"/proc/{child}/status").read_text():
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()


def test_a_damaged_checkpoint_is_passed_over_and_named(tiny_spec, tmp_path):
    spec = tiny_spec(schedule={"steps": 4, "evaluate_every": 0, "checkpoint_every": 2})
    run(spec, tmp_path / "whole")
    run(spec, tmp_path / "out")
    newest = tmp_path / "out" / "checkpoints" / "step-000004.a1" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    _, said = run(spec, tmp_path / "out", attempt=2)
    damaged = [m for m in said if m["type"] == "event" and m["name"] == "checkpoint_damaged"]
    assert "step-000004.a1" in damaged[0]["message"]
    assert [m["step"] for m in said if m["type"] == "progress"] == [3, 4]
    assert same_weights(tmp_path / "whole", tmp_path / "out")


def test_old_checkpoints_are_removed(tiny_spec, tmp_path):
    spec = tiny_spec(schedule={"steps": 4, "checkpoint_every": 1}, checkpoints={"keep_last": 2})
    _, said = run(spec, tmp_path / "out")
    kept = sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert kept == ["step-000003.a1", "step-000004.a1"]
    assert [m["name"] for m in said if m["type"] == "checkpoint_removed"] == ["step-000001.a1", "step-000002.a1"]


def test_a_directory_belongs_to_one_spec(tiny_spec, tmp_path):
    run(tiny_spec(schedule={"steps": 1}), tmp_path / "out")
    with pytest.raises(UserError, match="another spec"):
        run(tiny_spec(schedule={"steps": 2}), tmp_path / "out")


def test_a_directory_from_before_a_field_existed_goes_on(tiny_spec, tmp_path):
    run(tiny_spec(schedule={"steps": 1}), tmp_path / "out")
    file = tmp_path / "out" / "spec.json"
    stored = json.loads(file.read_text())
    del stored["telemetry"]["recovery_problems"]
    file.write_text(json.dumps(stored))
    run(tiny_spec(schedule={"steps": 1}), tmp_path / "out", attempt=2)
    file.write_text(json.dumps(stored | {"no_longer": 1}))
    with pytest.raises(UserError, match="another spec"):
        run(tiny_spec(schedule={"steps": 1}), tmp_path / "out", attempt=3)


def test_a_finished_directory_is_finished_again_without_training(tiny_spec, tmp_path):
    first, _ = run(tiny_spec(), tmp_path / "out")
    second, said = run(tiny_spec(), tmp_path / "out", attempt=2)
    assert [m["step"] for m in said if m["type"] == "progress"] == [4]  # how far it is, said again
    assert not [m for m in said if m["type"] == "records"]
    assert second["accuracy"] == first["accuracy"]


@pytest.mark.parametrize(
    ("section", "param", "words"),
    [
        ({"student": {"model": "demo/no-such-model"}}, "student.model", "demo/no-such-model"),
        ({"task": {"dataset": "MISSING", "prompt_column": "question"}}, "task.dataset", "MISSING"),
        ({"task": {"dataset": "FILE", "prompt_column": "nope"}}, "task.prompt_column", "question"),
        ({"recipe": "no-such-recipe"}, "recipe", "forward-kl"),
        ({"method": {"objective": {"beta": 3}}}, "method.objective.beta", "less than or equal to 1"),
    ],
)
def test_mistakes_end_in_one_sentence_and_nothing_half_written(section, param, words, tiny_spec, tiny_world, tmp_path):
    if "task" in section:
        path = {"FILE": str(tiny_world.problems), "MISSING": f"{tiny_world.root}/MISSING.jsonl"}[
            section["task"]["dataset"]
        ]
        section = {"task": {**section["task"], "dataset": path}}
    with pytest.raises(UserError) as caught:
        run(tiny_spec(**section), tmp_path / "out")
    assert caught.value.param
    assert caught.value.param.startswith(param)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "out" / "student").exists()
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_the_process_reports_a_mistake_as_the_users(tiny_spec, tmp_path):
    spec = tiny_spec(student={"model": "demo/no-such-model"})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "opd_core.training.main", "--spec", "spec.json", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert error["category"] == "user"
    assert error["param"] == "student.model"
    assert error["retryable"] is False
