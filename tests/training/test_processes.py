"""Several processes share each step of a job: the same update as one, one fate, checkpoints for any number of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from opd_core.models import whole
from opd_core.recipes import load, resolve
from opd_core.spec import UserError
from opd_core.teachers import score_with_ends
from opd_core.training.ranks import ALONE, Ranks, joined
from opd_core.training.run import Stopped, train
from opd_core.training.sharded import sharded_step
from opd_core.training.sharing import cuts, share, whole_scores
from tests.training.conftest import World
from tests.two_processes import in_two_processes

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="processes of a job take a GPU each"
)

CPU = torch.device("cpu")
# A critic, a reference, chance drawn token by token, statistics over the batch, groups with rewards.
METHODS = ["forward-kl", "gae-cr-opd", "kdrl", "random-half", "tip"]


@dataclass(frozen=True)
class SharedWorld(World):
    """Each process asks the teacher about its own rows."""

    ranks: Ranks

    def scores(self, lm, batch, micro_tokens):
        own = batch.rollouts.select(share(batch.rollouts, self.ranks))
        return whole_scores(score_with_ends(lm, own, micro_tokens=micro_tokens), self.ranks)


def batches(world):
    """Six rows; two of which the second, another process's, holds no completion token."""
    silent = world.batch.reorder(torch.tensor([3, 5]))
    mask, logp, truncated = (getattr(silent.rollouts, name).clone() for name in ("mask", "behaviour_logp", "truncated"))
    mask[1], logp[1], truncated[1] = False, 0.0, False
    rollouts = replace(silent.rollouts, mask=mask, behaviour_logp=logp, truncated=truncated)
    return {"all speak": world.batch, "one is silent": replace(silent, rollouts=rollouts)}


def gradients(world, ranks, methods, *, sharded=False):
    """Of every method and batch, by name; the loss among them."""
    shared, found = SharedWorld(**vars(world), ranks=ranks), {}
    for label, batch in batches(world).items():
        for name in methods:
            for micro_tokens in (10_000, 30):
                method, module = load(name).method, None
                if sharded:
                    _, module = sharded_step(world.student, world.module(method), ranks, CPU)
                update, module = shared.update(method, batch, micro_tokens=micro_tokens, ranks=ranks, module=module)
                losses = update.take_gradients()
                case = f"{label}, {name}, {micro_tokens}"
                found[f"{case}: loss"] = torch.tensor([losses.student, losses.critic])
                touched = ((n, p.grad) for n, p in module.named_parameters() if p.grad is not None)
                found |= {f"{case}: {n}": whole(gradient).clone() for n, gradient in touched}
    return found


def take_part(number, world, folder, methods, sharded):
    torch.set_num_threads(1)
    with joined(number, 2, folder, CPU) as ranks:
        save_file(gradients(world, ranks, methods, sharded=sharded), folder / f"{number}.safetensors")


@pytest.mark.parametrize(("methods", "sharded"), [(METHODS, False), (METHODS[:2], True)])
def test_two_processes_take_the_gradients_of_one(methods, sharded, world, tmp_path):
    assert [int(b.rollouts.mask[share(b.rollouts, Ranks(1, 2))].sum()) > 0 for b in batches(world).values()] == [1, 0]
    in_two_processes(take_part, world, tmp_path, methods, sharded)
    alone = gradients(world, ALONE, methods)
    parts = [load_file(tmp_path / f"{number}.safetensors") for number in (0, 1)]
    assert alone.keys() == parts[0].keys()
    for name, gradient in alone.items():
        assert torch.equal(parts[0][name], parts[1][name]), name
        worst = float((parts[0][name] - gradient).abs().max())
        # A loss is a sum of both signs: of rounding errors that are not small beside it.
        assert worst <= 1e-5 * float(gradient.abs().max()) + 1e-6 * name.endswith(": loss"), f"{name}: off by {worst}"


def test_shares_are_even_and_never_empty():
    assert cuts([1, 1, 1, 1], 2) == [slice(0, 2), slice(2, 4)]
    assert cuts([1, 1, 1, 9], 2) == [slice(0, 3), slice(3, 4)]
    assert cuts([9, 1, 1], 3) == [slice(0, 1), slice(1, 2), slice(2, 3)]


def of(processes, tiny_spec, **sections):
    return tiny_spec(
        resources={"processes": processes},
        **{
            "rollout": {"prompts_per_step": 9, "samples_per_prompt": 2, "max_new_tokens": 8},
            "optimizer": {"lr": 2e-2, "warmup_steps": 0},
            "schedule": {"steps": 8, "evaluate_every": 0, "checkpoint_every": 0},
            **sections,
        },
    )


def run(spec, out, stop_at=None):
    """(metrics by step, all that was said) of a run, or of its steps up to ``stop_at``."""
    said = []

    def stop():
        return any(m["type"] == "progress" and m["step"] == stop_at for m in said)

    try:
        train(spec, out, emit=said.append, should_stop=stop)
    except Stopped:
        assert stop_at is not None
    return {m["step"]: m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0}, said


def student(out):
    (newest,) = (out / "checkpoints").iterdir()
    return torch.cat([w.flatten() for w in load_file(newest / "student" / "model.safetensors").values()])


def test_the_first_update_is_that_of_one_process_and_checkpoints_serve_any_number(tiny_world, tiny_spec, tmp_path):
    """With what moves beside the student: an averaged teacher, rows of earlier steps."""
    more = {
        "teacher": {"mixture": [{"model": str(tiny_world.teacher)}, {"self": {"weights": "ema"}, "weight": 0.1}]},
        "rollout": {
            "prompts_per_step": 8,
            "samples_per_prompt": 2,
            "max_new_tokens": 8,
            "replay": {"share": 0.75, "max_age": 2},
        },
        "checkpoints": {"keep_last": 1},
    }
    one, two = (of(n, tiny_spec, **more) for n in (1, 2))
    alone, _ = run(one, tmp_path / "one", stop_at=1)
    metrics, _ = run(two, tmp_path / "two", stop_at=1)
    for name in ("loss", "kl", "grad_norm", "length_mean", "student_tokens", "teacher_tokens"):
        assert metrics[1][name] == pytest.approx(alone[1][name], rel=1e-4), name
    start = torch.cat([w.flatten() for w in load_file(tiny_world.student / "model.safetensors").values()])
    updates = [student(tmp_path / name) - start for name in ("one", "two")]
    assert float(torch.cosine_similarity(*updates, dim=0)) > 0.999

    metrics, said = run(two, tmp_path / "one", stop_at=4)
    assert any("processes 1 -> 2" in m["message"] for m in said if m["type"] == "warning")
    assert metrics[4]["loss"] < 0.8 * alone[1]["loss"]
    metrics, said = run(one, tmp_path / "one")
    assert any("processes 2 -> 1" in m["message"] for m in said if m["type"] == "warning")
    assert max(metrics) == 8
    assert metrics[8]["rows_replayed"] > 0


def test_resumed_by_two_processes_it_ends_bit_for_bit_as_without_a_pause(tiny_spec, tmp_path):
    spec = of(2, tiny_spec, schedule={"steps": 2, "evaluate_every": 0, "checkpoint_every": 0})
    for name, stops in (("paused", [1, None]), ("straight", [None])):
        for stop_at in stops:
            run(spec, tmp_path / name, stop_at)
    paused, straight = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("paused", "straight"))
    assert all(torch.equal(paused[name], weight) for name, weight in straight.items())


class Service:
    """The training process as a worker starts it."""

    def __init__(self, spec, out):
        file = out.parent / "spec.json"
        file.write_text(resolve(spec).model_dump_json())
        command = [sys.executable, "-m", "opd_core.training.main", "--spec", str(file), "--out", str(out)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True
        )
        self.leader = psutil.Process(self.process.pid)
        self.said = []

    def wait_for_step(self, step):
        for line in self.process.stdout:
            self.said.append(json.loads(line))  # nothing but messages, of one process alone
            if self.said[-1]["type"] == "progress" and self.said[-1]["step"] >= step:
                break
        (self.other,) = self.leader.children()

    def exit_code(self):
        """Of the leader, once both are gone."""
        code = self.process.wait(60)
        self.process.stdout.close()
        until = time.monotonic() + 30
        while self.other.is_running() and self.other.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until, "the other process goes on alone"
            time.sleep(0.05)
        return code


def test_the_processes_of_a_job_share_one_fate(tiny_spec, tmp_path):
    spec = of(2, tiny_spec, schedule={"steps": 100_000, "evaluate_every": 0, "checkpoint_every": 0})
    first = Service(spec, tmp_path / "out")
    first.wait_for_step(2)
    os.killpg(first.process.pid, signal.SIGTERM)  # as a container's end reaches all of them
    assert first.exit_code() == 75

    second = Service(spec, tmp_path / "out")
    second.wait_for_step(1)
    assert any(m.get("name") == "resumed" for m in second.said)
    began = time.monotonic()
    second.other.kill()
    assert second.exit_code() not in (0, 75)
    assert time.monotonic() - began < 30

    third = Service(spec, tmp_path / "out")
    third.wait_for_step(1)
    third.process.kill()
    assert third.exit_code() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"resources": {"processes": 4}, "rollout": {"prompts_per_step": 3}}, "more than the 3 prompts"),
        (
            {"resources": {"processes": 2}, "teacher": {"endpoint": "big"}, "recipe": "topk-forward-kl"},
            "teacher server",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(sections, words, tiny_spec):
    with pytest.raises(UserError) as refused:
        resolve(tiny_spec(**sections))
    assert refused.value.param == "resources.processes"
    assert words in refused.value.message
    assert str(sections["resources"]["processes"]) in refused.value.message
