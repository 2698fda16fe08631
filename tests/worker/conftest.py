"""A job store in a temporary home, and supervisors over a fake trainer."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from opd_core import recipes
from opd_core.runs import database
from opd_core.runs.rows import Claim, Event, Job
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from opd_core.spec import JobSpec
from tests.waiting import wait_until
from worker.supervisor import Ending, Supervisor

FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")
WORKER = "opd@test"


@dataclass
class LiveNotes:
    """Stands in for LiveWriter: keeps what was published."""

    published: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    records: list[tuple[int, int, bytes]] = field(default_factory=list)

    def publish(self, job_id: str, type: str, data: dict[str, Any]) -> None:
        self.published.append((type, data))

    def publish_records(
        self, job_id: str, step: int, attempt: int, payload: bytes, profile: bytes | None = None
    ) -> None:
        self.records.append((step, attempt, payload, profile))

    def types(self) -> list[str]:
        return [type for type, _ in self.published]


@dataclass
class Bench:
    """Everything one supervisor test needs."""

    settings: Settings
    store: RunStore
    live: LiveNotes
    drain: threading.Event = field(default_factory=threading.Event)

    def submit(self, **sections: Any) -> Job:
        base = {
            "name": "fake",
            "student": {"model": "demo/student"},
            "teacher": {"model": "demo/teacher"},
            "task": {"name": "demo/word-problems"},
        }
        spec = JobSpec.model_validate(base | sections)
        return self.store.create_job(spec, recipes.resolve(spec))

    def claim(self, job: Job) -> Claim:
        claim = self.store.claim(job.id, WORKER, self.settings.lease_s)
        assert claim is not None
        return claim

    def supervisor(self, claim: Claim, mode: str) -> Supervisor:
        command = (sys.executable, str(FAKE_TRAINER), mode)
        return Supervisor(claim, self.store, self.live, self.settings, draining=self.drain.is_set, command=command)  # type: ignore[arg-type]

    def run(self, job: Job, mode: str) -> Ending:
        """One attempt, here and now."""
        return self.supervisor(self.claim(job), mode).run()

    def job(self, job: Job) -> Job:
        found = self.store.get_job(job.id)
        assert found is not None
        return found

    def events(self, job: Job, type: str) -> list[Event]:
        return [event for event in self.store.list_events(job.id, limit=1000)[0] if event.type == type]

    def trainer_pid(self, job: Job) -> int:
        """Wait until the trainer trains; its process id."""
        wait_until(lambda: self.job(job).progress.get("step", 0) > 0)
        pid = self.store.list_attempts(job.id)[-1].pid
        assert pid is not None
        assert is_running(pid)
        return pid


def is_running(pid: int) -> bool:
    """Whether there is such a process, zombies not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in list(os.environ):
        if name.startswith("OPD_"):
            monkeypatch.delenv(name)
    settings = Settings(home=tmp_path, lease_s=4.0, cancel_grace_s=1.5, drain_s=3.0)
    engine = database.connect(settings.database_url)
    database.migrate(engine)
    return Bench(settings, RunStore(engine), LiveNotes())
