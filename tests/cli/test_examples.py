"""Every example in examples/ trains to its end on the demo's models, in a few steps."""

from __future__ import annotations

import importlib.util
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
from tests.tiny import TinyWorld
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
    assert list((out / "student").glob("*model.safetensors"))  # the model's, or the adapter's alone
    assert f"step {STEPS}/{STEPS}" in done.stdout


# They need models of the hub, and servers: a vLLM writes for the last one in tests/vllm/test_jobs.
OUTSIDE = {"other-tokenizer", "server", "served"}
IN_BITS = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs opd[quantization]")


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, id=path.stem, marks=[IN_BITS] if path.stem == "four-bits" else [])
        for path in sorted(EXAMPLES.rglob("*.yaml"))
        if path.stem not in OUTSIDE
    ],
)
def test_an_example_trains_to_its_end(example: Path, demo_home: Path, tmp_path: Path) -> None:
    train(example, demo_home, tmp_path / "out")


def test_the_example_of_a_server_trains_with_one_of_our_own(
    teacher_server: str, demo_home: Path, tmp_path: Path
) -> None:
    (demo_home / "endpoints.yaml").write_text(json.dumps({"big-teacher": {"url": teacher_server, "model": "demo"}}))
    train(EXAMPLES / "teachers" / "server.yaml", demo_home, tmp_path / "out")


def test_the_example_of_another_tokenizer_trains_with_models_of_our_own(
    tiny_world: TinyWorld, demo_home: Path, tmp_path: Path
) -> None:
    teacher = shuffled_model(tiny_world.teacher, tmp_path / "shuffled")
    changes = [f"student.model={tiny_world.student}", f"teacher.model={teacher}", "rollout.max_new_tokens=8"]
    changes += [f"task.dataset={tiny_world.problems}", "task.eval_examples=16"]
    train(EXAMPLES / "teachers" / "other-tokenizer.yaml", demo_home, tmp_path / "out", *changes)
