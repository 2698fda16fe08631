"""``opd train`` for real: a tiny job, an interruption, the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opd_core.spec import JobSpec


@pytest.fixture
def command(home: Path, tiny_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a spec file and returns the command that trains it. No root is set: the spec's own paths are allowed."""

    def make(**sections) -> list[str]:
        spec: JobSpec = tiny_spec(**sections)
        monkeypatch.delenv("OPD_MODEL_ROOTS")
        monkeypatch.delenv("OPD_DATA_ROOTS")
        file = tmp_path / "spec.json"
        file.write_text(spec.model_dump_json(exclude_unset=True))
        return [sys.executable, "-m", "cli", "train", str(file), "--out", str(tmp_path / "out")]

    return make


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_trains_to_a_model_and_a_report(command, tmp_path: Path) -> None:
    result = run(command())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "step 4/4" in result.stdout
    assert (tmp_path / "out" / "student" / "model.safetensors").exists()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["accuracy"]


def test_interrupted_run_goes_on_with_the_same_command(command, tmp_path: Path) -> None:
    long = command(schedule={"steps": 400, "evaluate_every": 0, "checkpoint_every": 0})
    process = subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ})
    assert process.stdout is not None
    seen = ""
    while "step " not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 1, seen + rest
    assert "The same command goes on" in rest
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    done = int(checkpoint.name.removeprefix("step-").partition(".")[0])
    assert 0 < done < 400

    again = subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert again.stdout is not None
    line = ""
    while not line.startswith("step "):
        line = again.stdout.readline()
        assert line
    assert int(line.split()[1].partition("/")[0]) > done
    # The first interrupt waits for the step; the second does not.
    again.send_signal(signal.SIGINT)
    while again.poll() is None:
        time.sleep(0.01)
        again.send_signal(signal.SIGINT)
    again.communicate()
    assert again.returncode != 0


def test_user_errors_end_with_code_2_and_one_sentence(command) -> None:
    result = run(command(task={"dataset": "/nowhere/problems.jsonl"}))
    assert result.returncode == 2
    assert "task.dataset" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
