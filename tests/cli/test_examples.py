"""Every example in examples/ trains to its end on the demo's models, in a few steps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opd_core.runs.settings import Settings
from opd_core.tasks import demo_models
from tests.integration.test_remote_teacher import TeacherServer
from tests.tokenizers import shuffled_model

pytestmark = pytest.mark.long
EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 4


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the demo's models: those that are built already, or new ones."""
    home = tmp_path_factory.mktemp("home")
    if (built := Settings().home / "models").is_dir():
        shutil.copytree(built, home / "models")
    demo_models.ensure(home)
    return home


@pytest.fixture(scope="module")
def teacher_server(demo_home: Path) -> Iterator[str]:
    """The address of a server that speaks for the demo's teacher."""
    built = demo_models.directory(demo_home)
    server = TeacherServer(built / "teacher", built)
    yield server.url
    server.close()


def train(example: Path, home: Path, out: Path, *changes: str) -> None:
    """``opd train`` with these overrides, to the exported student and the report."""
    overrides = [part for change in (f"schedule.steps={STEPS}", *changes) for part in ("--set", change)]
    done = subprocess.run(
        [sys.executable, "-m", "cli", "train", str(example), "--out", str(out), *overrides],
        env={**os.environ, "OPD_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["budget"]["student_tokens"] > 0
    assert report["accuracy"]["after"] is not None
    assert (out / "student" / "model.safetensors").exists()
    assert f"step {STEPS}/{STEPS}" in done.stdout


OUTSIDE = {"server", "other-tokenizer"}  # need a server, and models of the hub


@pytest.mark.parametrize(
    "example",
    [path for path in sorted(EXAMPLES.rglob("*.yaml")) if path.stem not in OUTSIDE],
    ids=lambda path: path.stem,
)
def test_an_example_trains_to_its_end(example: Path, demo_home: Path, tmp_path: Path) -> None:
    train(example, demo_home, tmp_path / "out")


def test_the_example_of_a_server_trains_with_one_of_our_own(
    teacher_server: str, demo_home: Path, tmp_path: Path
) -> None:
    (demo_home / "endpoints.yaml").write_text(json.dumps({"big-teacher": {"url": teacher_server, "model": "demo"}}))
    train(EXAMPLES / "teachers" / "server.yaml", demo_home, tmp_path / "out")


def test_the_example_of_another_tokenizer_trains_with_models_of_our_own(demo_home: Path, tmp_path: Path) -> None:
    teacher = shuffled_model(demo_models.directory(demo_home) / "teacher", tmp_path / "shuffled")
    changes = ["student.model=demo/student", f"teacher.model={teacher}", "rollout.max_new_tokens=36"]
    train(EXAMPLES / "teachers" / "other-tokenizer.yaml", demo_home, tmp_path / "out", *changes)
