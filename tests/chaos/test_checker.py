"""The checker is quiet about an orderly history and names every kind of disorder. No process is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from opd_core.recipes import resolve
from opd_core.runs import database
from opd_core.runs import tables as t
from opd_core.runs.artifacts import RunFiles, job_files
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from opd_core.spec import JobSpec
from tests.chaos.checker import WEIGHTS, Reference, check
from tests.runs.test_store import SPEC

STEPS = 3


class History:
    """A job that was lost once and then succeeded, with everything such a run leaves."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder)
        engine = database.connect(self.settings.database_url)
        database.migrate(engine)
        self.store = RunStore(engine)
        spec = JobSpec.model_validate(SPEC.model_dump(mode="json"))
        self.job_id = self.store.create_job(spec, resolve(spec)).id
        self.files = job_files(self.settings.artifacts_url, self.job_id)
        self._write(folder / "measure")
        self.reference = Reference.of(RunFiles(folder / "measure"))
        self._write(self.files.url)
        store, job_id = self.store, self.job_id
        for attempt in (1, 2):
            assert store.claim(job_id, f"w{attempt}", 30) is not None
            store.add_event(job_id, "info", "trainer_started", "started", attempt=attempt)
            store.set_phase(job_id, attempt, "training", "running")
            if attempt == 1:
                store.requeue(job_id, 1, crashed=True)
        for step in range(STEPS + 1):
            store.add_metrics(job_id, 2, step, {"loss": 1.0})
        store.set_progress(job_id, 2, {"step": STEPS})
        self._index(2, "student", "export")
        store.finish(job_id, 2, "succeeded", report={"budget": {"student_tokens": 10}})

    def _write(self, where: str | Path) -> None:
        files = RunFiles(where)
        files.write_json("report.json", {"budget": {"student_tokens": 10, "teacher_tokens": 20}})
        files.write_bytes(WEIGHTS, b"weights")
        files.write_json("student/manifest.json", {})

    def _index(self, attempt: int, name: str, kind: str) -> None:
        entry = {"name": "model.safetensors", "size": 7, "sha256": self.reference.weights}
        row = {"name": name, "step": STEPS, "kind": kind, "size_bytes": 7, "files": [entry]}
        self.store.add_checkpoint(self.job_id, attempt, **row)

    def change(self, statement) -> None:
        with database.writer(self.store.engine).begin() as connection:
            connection.execute(statement)

    def event(self, type: str, attempt: int) -> None:
        self.store.add_event(self.job_id, "info", type, "x", attempt=None)
        self.change(update(t.events).where(t.events.c.type == type).values(attempt=attempt))

    def findings(self) -> list[str]:
        return check(self.store, self.settings, {self.job_id: self.reference}, STEPS)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def test_an_orderly_history_has_no_findings(history: History) -> None:
    assert history.findings() == []


def two_holders(history: History) -> None:
    history.event("resumed", 1)


def overlap(history: History) -> None:
    history.change(update(t.attempts).where(t.attempts.c.attempt == 1).values(finished_at=9e9))


def without_end(history: History) -> None:
    history.change(update(t.attempts).where(t.attempts.c.attempt == 1).values(finished_at=None))


def claimed_twice(history: History) -> None:
    history.event("claimed", 2)


def ended_twice(history: History) -> None:
    history.event("finished", 2)


def step_missing(history: History) -> None:
    history.change(t.metrics.delete().where(t.metrics.c.step == 2))


def step_too_many(history: History) -> None:
    history.change(insert(t.metrics).values(job_id=history.job_id, step=9, attempt=2, values={}))


def gap_in_the_log(history: History) -> None:
    history.change(t.events.delete().where(t.events.c.seq == 3))


def other_weights(history: History) -> None:
    history.files.write_bytes(WEIGHTS, b"Weights")


def counted_twice(history: History) -> None:
    history.files.write_json("report.json", {"budget": {"student_tokens": 11, "teacher_tokens": 20}})


def checkpoint_gone(history: History) -> None:
    history.files.remove("student/manifest.json")


def left_running(history: History) -> None:
    history.change(update(t.jobs).values(status="running", worker="w2"))


def lost(history: History) -> None:
    history.change(t.jobs.delete())


@pytest.mark.parametrize(
    ("disorder", "words"),
    [
        (two_holders, "attempt 1 wrote 'resumed' while attempt 2 held the job"),
        (overlap, "attempts 1 and 2 overlap"),
        (without_end, "attempt 1 has no end"),
        (claimed_twice, "claims [2, 2, 2] of 2"),
        (ended_twice, "reached a terminal status 2 times"),
        (step_missing, "metrics of steps [0, 1, 3] instead of 0..3"),
        (step_too_many, "metrics of steps [0, 1, 2, 3, 9]"),
        (gap_in_the_log, "the audit log has gaps or doubles"),
        (other_weights, "other final weights than the undisturbed run"),
        (counted_twice, "student_tokens 11 instead of 10"),
        (checkpoint_gone, "student is indexed and gone"),
        (left_running, "ended as running"),
        (lost, "accepted and lost"),
    ],
)
def test_disorder_is_named(history: History, disorder: Callable[[History], None], words: str) -> None:
    disorder(history)
    assert [sentence for sentence in history.findings() if words in sentence] != []
