"""Damaged checkpoints: whichever file it is and whatever is wrong, the one before is used and the run says so."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from opd_core.runs.artifacts import CorruptArtifact, RunFiles
from opd_core.training import checkpoint
from opd_core.training.run import Stopped, train
from tests.training.test_run import run, same_weights

NEWEST, BEFORE = "step-000004.a1", "step-000002.a1"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run directory with two checkpoints is kept; made by the first test that needs it."""
    return tmp_path_factory.mktemp("saved") / "out"


@pytest.fixture
def spec(tiny_spec, saved):
    """A method with a critic: every kind of file is there."""
    spec = tiny_spec(
        recipe="gae-opd",
        schedule={"steps": 6, "evaluate_every": 0, "checkpoint_every": 2},
        checkpoints={"keep_last": 3},
        telemetry={"sequences_per_step": 0},
        task=dict(tiny_spec().task.model_dump(), eval_examples=0),
    )
    if not saved.exists():
        with pytest.raises(Stopped):
            train(spec, saved, emit=lambda _: None, should_stop=Countdown(5))
        checkpoint.remove(RunFiles(saved), "step-000005.a1")
    return spec


class Countdown:
    """False so many times, then True."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def resumed(spec, out: Path) -> tuple[int, list[str], list[str]]:
    """Resume and stop at once: the step it went on from, what it said is damaged, its warnings."""
    said: list[dict] = []
    with pytest.raises(Stopped):
        train(spec, out, attempt=2, emit=said.append, should_stop=Countdown(1))
    events = {name: [m for m in said if m.get("name") == name] for name in ("resumed", "checkpoint_damaged")}
    step = events["resumed"][0]["data"]["step"] if events["resumed"] else 0
    warnings = [m["message"] for m in said if m["type"] == "warning"]
    return step, [m["message"] for m in events["checkpoint_damaged"]], warnings


def files_of(directory: Path) -> list[str]:
    return sorted(file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file())


def cut(data: bytes) -> bytes:
    return data[:-1]


def emptied(_: bytes) -> bytes:
    return b""


def flipped(data: bytes) -> bytes:
    place = random.Random(len(data)).randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [cut, emptied, flipped])
def test_every_file_is_checked(damage, spec, saved, tmp_path) -> None:
    """Fetching is what a resume does first; a manifest has no checksum of its own, so it is a test of its own below."""
    damaged = 0
    for name in files_of(saved / "checkpoints" / NEWEST):
        if name == "manifest.json":
            continue
        out = tmp_path / name.replace("/", "-")
        shutil.copytree(saved / "checkpoints", out / "checkpoints")
        file = out / "checkpoints" / NEWEST / name
        file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(CorruptArtifact, match=name):
            RunFiles(out).fetch(f"checkpoints/{NEWEST}", tmp_path / "fetched")
        damaged += 1
    assert damaged >= 7


@pytest.mark.parametrize("name", ["trainer.json", "student/model.safetensors", "critic_optimizer.safetensors"])
def test_the_run_goes_on_from_the_one_before_and_says_so(name, spec, saved, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(saved, out)
    file = out / "checkpoints" / NEWEST / name
    file.write_bytes(flipped(file.read_bytes()))
    step, damaged, warnings = resumed(spec, out)
    assert step == 2
    assert len(damaged) == 1
    assert f"checkpoint {NEWEST} is damaged ({name} is not the file that was written); {BEFORE}" in damaged[0]
    assert damaged[0] in warnings


def test_scalars_that_nobody_may_have_recorded_are_said_again(spec, saved, tmp_path) -> None:
    """The checkpoint is there, and who listened died before it had written down the steps that led to it."""
    shutil.copytree(saved, tmp_path / "out")
    said: list[dict] = []
    with pytest.raises(Stopped):
        train(spec, tmp_path / "out", attempt=2, emit=said.append, should_stop=Countdown(0))
    again = [(m["step"], m["values"]) for m in said if m["type"] == "metrics"]
    assert [step for step, _ in again] == [1, 2, 3, 4]
    assert all(values["loss"] is not None for _, values in again)


def test_a_manifest_may_be_cut_or_flipped_anywhere(spec, saved, tmp_path) -> None:
    """Some flips change nothing that is read; any other one is found out. None ends in another error."""
    source = (saved / "checkpoints" / NEWEST / "manifest.json").read_bytes()
    out = tmp_path / "out"
    shutil.copytree(saved / "checkpoints", out / "checkpoints")
    file = out / "checkpoints" / NEWEST / "manifest.json"
    whole = set(files_of(saved / "checkpoints" / NEWEST)) - {"manifest.json"}
    refused = 0
    for place in range(len(source)):
        flip = bytes([source[place] ^ (1 << place % 8)])
        file.write_bytes(source[:place] + flip + source[place + 1 :])
        fetched = tmp_path / "fetched"
        shutil.rmtree(fetched, ignore_errors=True)
        try:
            RunFiles(out).fetch(f"checkpoints/{NEWEST}", fetched)
        except CorruptArtifact:
            refused += 1
        else:
            assert set(files_of(fetched)) == whole
    assert refused > len(source) / 2
    for length in (0, 1, len(source) // 2, len(source) - 1):
        file.write_bytes(source[:length])
        with pytest.raises(CorruptArtifact, match="damaged"):
            RunFiles(out).fetch(f"checkpoints/{NEWEST}", tmp_path / "fetched")


def test_with_no_sound_checkpoint_left_the_run_starts_anew_and_ends_the_same(spec, saved, tmp_path) -> None:
    run(spec, tmp_path / "whole")
    out = tmp_path / "out"
    shutil.copytree(saved, out)
    for name in (NEWEST, BEFORE):
        file = out / "checkpoints" / name / "optimizer.safetensors"
        file.write_bytes(cut(file.read_bytes()))
    report, said = run(spec, out, attempt=2)
    assert [m["step"] for m in said if m["type"] == "progress"] == [1, 2, 3, 4, 5, 6]
    assert [sentence for sentence in report["warnings"] if "none is left, the run starts anew" in sentence] != []
    assert same_weights(tmp_path / "whole", out)


def test_what_a_killed_trainer_left_unfinished_is_removed_and_a_finished_run_says_how_far_it_is(tiny_spec, tmp_path):
    spec = tiny_spec(schedule={"steps": 2, "evaluate_every": 0, "checkpoint_every": 1})
    out = tmp_path / "out"
    train(spec, out, emit=lambda message: None)
    left = out / "checkpoints" / "step-000002.a7.tmp"
    left.mkdir()
    (left / "half").write_bytes(b"x")
    said = []
    train(spec, out, attempt=2, emit=said.append)  # the last step's checkpoint is there: nothing is left to train
    assert not left.exists()
    progress = [message for message in said if message["type"] == "progress"]
    assert [(message["step"], message["total"]) for message in progress] == [(2, 2)]
    assert progress[0]["loss"] is not None
