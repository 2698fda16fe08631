"""A machine on which no trainer starts: its interpreter is gone, or what it imports. The jobs are not at fault."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worker.conftest import WORKER, Bench
from worker import tasks
from worker.supervisor import NO_TRAINER, Ending


def test_without_an_interpreter_the_job_goes_back_at_once_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.submit(schedule={"max_restarts": 0})
    with monkeypatch.context() as gone:
        gone.setattr("worker.leash.sys.executable", "/nowhere/bin/python")
        ending = bench.supervisor(bench.claim(job), "success").run()
    assert ending == Ending("queued", "the trainer cannot be started here: No such file or directory", later=NO_TRAINER)
    rests = bench.job(job)
    assert (rests.status, rests.phase, rests.crashes) == ("queued", NO_TRAINER, 0)
    assert "No such file" in bench.events(job, "trainer_not_started")[0].message
    assert bench.store.due(30) == []  # not at once
    assert bench.run(bench.job(job), "success").status == "succeeded"


def test_a_trainer_that_cannot_import_what_it_needs_never_saw_the_job(bench: Bench) -> None:
    job = bench.submit(schedule={"max_restarts": 0})
    assert bench.run(job, "cannot-import").later is NO_TRAINER
    rests = bench.job(job)
    assert (rests.status, rests.phase, rests.crashes) == ("queued", NO_TRAINER, 0)
    (event,) = bench.events(job, "trainer_not_started")
    assert "No module named 'torch'" in event.data["log"]
    assert bench.events(job, "trainer_crashed") == []


def test_such_a_worker_leaves_the_rest_of_the_queue_alone_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, *_: object, **__: object) -> None: ...

        def run(self) -> Ending:
            return Ending("queued", "the trainer could not start here (exit code 1)", later=NO_TRAINER)

    def claim(store: Any, job_id: str, *_: object) -> object:
        return store.claim(job_id, WORKER, 30.0)

    monkeypatch.setenv("OPD_HOME", str(bench.settings.home))
    monkeypatch.setattr(tasks, "Supervisor", Broken)
    monkeypatch.setattr(tasks.RunStore, "claim_next", claim)  # without Celery the worker has no name
    now = 1000.0
    monkeypatch.setattr(tasks.time, "monotonic", lambda: now)
    monkeypatch.setattr(tasks, "_rests_until", 0.0)
    first, second = bench.submit(), bench.submit()
    tasks.run_job.run(first.id)
    assert bench.job(first).attempt == 1
    tasks.run_job.run(second.id)
    waits = bench.job(second)
    assert (waits.status, waits.phase, waits.attempt) == ("queued", NO_TRAINER, 0)
    now += 61.0
    tasks.run_job.run(second.id)
    assert bench.job(second).attempt == 1
