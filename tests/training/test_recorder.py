"""When recorded steps come to rest, and what is said of them before."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd_core.runs.artifacts import RunFiles
from opd_core.training import recorder
from opd_core.training.recorder import Recorder
from opd_core.training.step import Step
from tests.runs.test_records import row


def recorded(step: int) -> Step:
    return Step({}, [row(step), row(step, n=1)], [])


def parts(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob("records/*.parquet"))


def test_steps_wait_until_they_are_many_tokens_and_then_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_TOKENS_PER_PART", 10)  # a step has six
    said: list[dict] = []
    keeper = Recorder(RunFiles(tmp_path), attempt=1, emit=said.append)
    for step in range(1, 6):
        keeper.take(step, recorded(step))
    assert parts(tmp_path) == ["steps-000001-000002.a1.parquet", "steps-000003-000004.a1.parquet"]
    assert [message["step"] for message in said] == [1, 2, 3, 4, 5]  # said at once, all of them
    keeper.write()
    keeper.write()  # nothing is left
    assert parts(tmp_path)[2:] == ["steps-000005-000005.a1.parquet"]


def test_many_short_steps_are_a_part_and_a_step_without_records_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_STEPS_PER_PART", 2)
    said: list[dict] = []
    keeper = Recorder(RunFiles(tmp_path), attempt=3, emit=said.append)
    for step in range(1, 5):
        keeper.take(step, recorded(step) if step % 2 else Step({}, [], []))
    assert parts(tmp_path) == ["steps-000001-000003.a3.parquet"]
    assert len(said) == 2
