"""``opd demo --exit`` with a tiny job in the place of the demo's: the whole way in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import processes_of

pytestmark = pytest.mark.service

DRIVER = """
from pathlib import Path
from rich.console import Console
from cli import demo
from cli.up import UpOptions
from opd_core.runs.settings import Settings
demo.DEMO_SPEC = Path({spec!r})
demo.build = lambda *_: None
raise SystemExit(demo.demo(UpOptions(Settings(), dashboard=False), Console(width=200), leave=True, seed=3))
"""


def run(tiny_spec: Any, home: Path, **sections: Any) -> subprocess.CompletedProcess[str]:
    file = home / "spec.json"
    file.write_text(tiny_spec(**sections).model_dump_json(exclude_unset=True))
    environment = {**os.environ, "OPD_HOME": str(home)}
    command = [sys.executable, "-c", DRIVER.format(spec=str(file))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_success_ends_with_0_and_says_what_was_learned(tiny_spec: Any, tmp_path: Path) -> None:
    result = run(tiny_spec, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not processes_of(tmp_path)
    assert "student before" in result.stdout
    (student,) = (line.split()[1] for line in result.stdout.splitlines() if line.startswith("Model "))
    assert (Path(student) / "model.safetensors").exists()
    assert json.loads((Path(student).parent / "report.json").read_text())["seed"] == 3


@pytest.mark.long
def test_failure_ends_with_1_and_the_reason(tiny_spec: Any, tmp_path: Path) -> None:
    result = run(tiny_spec, tmp_path, task={"dataset": "/nowhere/problems.jsonl"})
    assert result.returncode == 1, result.stdout + result.stderr
    assert not processes_of(tmp_path)
    assert "task.dataset" in result.stdout
