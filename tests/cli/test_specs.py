"""Reading specs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cli import specs
from cli.train import _next_attempt, load
from opd_core.runs.artifacts import RunFiles
from opd_core.spec import UserError

SPEC = """
name: mine
student: {model: demo/student}
teacher: {model: demo/teacher}
task: {dataset: data/problems.jsonl}
"""


def test_json_is_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"optimizer": {"lr": 1e-3}}')
    (tmp_path / "b.yaml").write_text("{optimizer: {lr: 0.001}}")
    assert specs.read(str(tmp_path / "a.json")) == specs.read(str(tmp_path / "b.yaml"))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("name: x"))
    assert specs.read("-") == {"name": "x"}


def test_overrides_reach_into_the_spec(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("seed: 0\noptimizer: {lr: 0.1}")
    read = specs.read(str(file), ["seed=3", "optimizer.lr=0.5", "rollout.top_p=0.9", "method.support={kind: full}"])
    assert read == {
        "seed": 3,
        "optimizer": {"lr": 0.5},
        "rollout": {"top_p": 0.9},
        "method": {"support": {"kind": "full"}},
    }


@pytest.mark.parametrize("override", ["seed", "=1", "a..b=1", "seed.x=1", "name=[", ".=1"])
def test_bad_overrides_are_refused(tmp_path: Path, override: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("seed: 0")
    with pytest.raises(UserError, match="--set"):
        specs.read(str(file), [override])


def test_data_of_train_is_relative_to_its_spec(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    assert load(str(file), []).task.dataset == str(tmp_path / "data/problems.jsonl")
    assert load(str(file), ["task.dataset=/elsewhere.csv"]).task.dataset == "/elsewhere.csv"


def test_train_refuses_a_bad_field_by_name(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        load(str(file), ["optimizer.lr=-1"])


def test_attempts_of_a_directory_count_on(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    assert _next_attempt(files) == 1
    files.write_bytes("records/steps-000001-000020.a2.parquet", b"")
    assert _next_attempt(files) == 3
    (tmp_path / "checkpoints" / "step-000020.a11").mkdir(parents=True)
    assert _next_attempt(files) == 12
