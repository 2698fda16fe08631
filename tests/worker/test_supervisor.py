"""Supervising a fake trainer, with real processes, a real database and real files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import update

from opd_core.runs.artifacts import RunFiles, job_files
from opd_core.runs.rows import Job
from opd_core.runs.tables import attempts
from tests.waiting import wait_until
from tests.worker.conftest import FAKE_TRAINER, Bench, is_running
from worker.supervisor import Ending, Stop, judge


@contextmanager
def running(bench: Bench, job: Job, mode: str) -> Iterator[list[Ending]]:
    """The supervisor in a thread; joined at the end. The list holds its verdict then."""
    endings: list[Ending] = []
    supervisor = bench.supervisor(bench.claim(job), mode)
    thread = threading.Thread(target=lambda: endings.append(supervisor.run()), daemon=True)
    thread.start()
    try:
        yield endings
    finally:
        thread.join(timeout=30)
        assert not thread.is_alive()


def log_of(bench: Bench, job: Job, attempt: int = 1) -> str:
    return job_files(bench.settings.artifacts_url, job.id).read_bytes(f"logs/attempt-{attempt}.log").decode()


def test_success_is_recorded_and_published(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPD_REDIS_URL", "redis://:secret-secret@localhost/0")
    job = bench.submit(seed=7, resources={"threads": 3})
    assert bench.run(job, "success").status == "succeeded"

    done = bench.job(job)
    assert (done.status, done.attempt, done.crashes) == ("succeeded", 1, 0)
    assert bench.store.get_report(job.id) == {"accuracy": {"after": 0.9}, "seed": 7}
    assert done.progress["step"] == 1
    assert (done.accuracy["before"], done.accuracy["teacher"]) == (0.2, 1.0)
    assert done.warnings == ["a warning to keep"]
    assert bench.store.get_metrics(job.id) == [(1, {"loss": 0.5})]
    assert [checkpoint.name for checkpoint in bench.store.list_checkpoints(job.id)] == ["step-000001.a1"]
    assert "free text of the trainer" in log_of(bench, job)
    (attempt,) = bench.store.list_attempts(job.id)
    assert (attempt.exit_code, attempt.signal, attempt.reason) == (0, None, "succeeded")

    # A line that is no message is a warning, not a crash.
    (malformed,) = bench.events(job, "malformed_line")
    assert "this is not a message" in malformed.message
    # Thread settings as asked for; the trainer is not told where the queue is.
    (environment,) = bench.events(job, "environment")
    assert environment.data == {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "0", "OPD_REDIS_URL": None}
    assert bench.events(job, "trainer_started")[0].data["threads"] == 3

    assert {"status", "progress", "metrics", "checkpoint", "accuracy", "event"} <= set(bench.live.types())
    statuses = [data["status"] for type, data in bench.live.published if type == "status"]
    assert list(dict.fromkeys(statuses)) == ["preparing", "running", "finalizing", "succeeded"]
    assert bench.live.published[-1] == ("end", {"status": "succeeded"})
    names = [data["type"] for type, data in bench.live.published if type == "event"]
    assert names[0] == "claimed"
    assert names[-1] == "finished"


def test_user_error_fails_at_once(bench: Bench) -> None:
    job = bench.submit()
    assert bench.run(job, "user-error").status == "failed"
    done = bench.job(job)
    assert done.status == "failed"
    assert done.error is not None
    assert (done.error["code"], done.error["category"]) == ("missing_column", "user")
    assert done.error["param"] == "task.prompt_column"


def test_crash_goes_back_to_the_queue_with_the_end_of_the_log(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2-hunter2")
    job = bench.submit()
    ending = bench.run(job, "crash")
    assert (ending.status, ending.crashed) == ("queued", True)
    again = bench.job(job)
    assert (again.status, again.crashes, again.attempt) == ("queued", 1, 1)
    (crash,) = bench.events(job, "trainer_crashed")
    assert "SIGKILL" in crash.message
    assert "about to fail" in crash.data["log"]
    assert "hunter2" not in crash.data["log"]
    assert "hunter2" not in log_of(bench, job)
    assert bench.store.list_attempts(job.id)[0].signal == signal.SIGKILL

    assert bench.run(job, "success").status == "succeeded"
    assert bench.job(job).attempt == 2


def test_crashing_for_ever_ends_as_worker_lost(bench: Bench) -> None:
    job = bench.submit()
    attempts = 0
    while bench.job(job).status == "queued":
        bench.run(job, "crash")
        attempts += 1
        assert attempts < 10
    done = bench.job(job)
    assert done.status == "failed"
    assert done.error is not None
    assert done.error["code"] == "worker_lost"


def test_cancel_stops_the_process_and_keeps_its_checkpoint(bench: Bench) -> None:
    job = bench.submit()
    with running(bench, job, "polite") as endings:
        pid = bench.trainer_pid(job)
        assert bench.store.request_cancel(job.id).status == "cancelling"
    assert endings[0].status == "cancelled"
    assert not is_running(pid)
    assert bench.job(job).status == "cancelled"
    assert [checkpoint.step for checkpoint in bench.store.list_checkpoints(job.id)] == [7]
    assert bench.live.published[-1] == ("end", {"status": "cancelled"})


def test_cancel_ends_a_trainer_that_does_not_listen(bench: Bench) -> None:
    job = bench.submit()
    with running(bench, job, "deaf") as endings:
        pid = bench.trainer_pid(job)
        bench.store.request_cancel(job.id)
    assert endings[0].status == "cancelled"
    assert not is_running(pid)
    assert bench.store.list_attempts(job.id)[0].signal == signal.SIGKILL


def test_what_the_trainer_started_ends_with_it(bench: Bench) -> None:
    job = bench.submit()
    with running(bench, job, "family"):
        bench.trainer_pid(job)
        (helper,) = bench.events(job, "helper")
        assert is_running(helper.data["pid"])
        bench.store.request_cancel(job.id)
    wait_until(lambda: not is_running(helper.data["pid"]))


def test_drain_gives_the_job_back_without_a_crash(bench: Bench) -> None:
    job = bench.submit()
    with running(bench, job, "polite") as endings:
        pid = bench.trainer_pid(job)
        bench.drain.set()
    assert endings == [Ending("queued", "drained (exit code 75)")]
    assert not is_running(pid)
    again = bench.job(job)
    assert (again.status, again.crashes) == ("queued", 0)
    assert [checkpoint.step for checkpoint in bench.store.list_checkpoints(job.id)] == [7]


def test_pause_frees_the_worker_and_the_job_rests_until_it_is_resumed(bench: Bench) -> None:
    job = bench.submit()
    with running(bench, job, "polite") as endings:
        pid = bench.trainer_pid(job)
        assert bench.store.request_pause(job.id).status == "pausing"
    assert endings == [Ending("paused", "paused (exit code 75)")]
    assert not is_running(pid)
    resting = bench.job(job)
    assert (resting.status, resting.crashes) == ("paused", 0)
    assert [checkpoint.step for checkpoint in bench.store.list_checkpoints(job.id)] == [7]
    assert "end" not in bench.live.types()
    statuses = [data["status"] for type, data in bench.live.published if type == "status"]
    assert statuses[-1] == "paused"
    bench.store.request_resume(job.id)
    assert bench.run(job, "success").status == "succeeded"
    assert bench.job(job).attempt == 2


def test_a_vanished_teacher_pauses_the_job_and_poisons_nothing(bench: Bench) -> None:
    job = bench.submit()
    assert bench.run(job, "teacher-gone").status == "paused"
    resting = bench.job(job)
    assert (resting.status, resting.crashes, resting.error) == ("paused", 0, None)
    assert [checkpoint.step for checkpoint in bench.store.list_checkpoints(job.id)] == [4]
    (told,) = [event for event in bench.store.list_events(job.id, limit=100)[0] if event.type == "teacher_unreachable"]
    assert "the teacher server 'big' is silent" in told.message
    assert bench.store.request_resume(job.id).status == "queued"
    assert bench.run(job, "success").status == "succeeded"


def test_every_wish_for_a_checkpoint_is_told_once(bench: Bench) -> None:
    job = bench.submit()
    with running(bench, job, "polite"):
        bench.trainer_pid(job)
        for wish in (1, 2):
            bench.store.request_checkpoint(job.id)
            bench.store.request_checkpoint(job.id)
            wait_until(lambda wish=wish: len(bench.store.list_checkpoints(job.id)) == wish)
            assert bench.job(job).save_wanted is False
            step = bench.job(job).progress["step"]
            wait_until(lambda step=step: bench.job(job).progress["step"] > step + 10)  # it goes on
            assert len(bench.store.list_checkpoints(job.id)) == wish
        bench.store.request_cancel(job.id)


def test_nobody_waits_for_a_trainer_that_only_loads(bench: Bench) -> None:
    bench.settings.drain_s = 600.0
    job = bench.submit()
    with running(bench, job, "loading") as endings:
        wait_until(lambda: bench.job(job).phase == "loading models")
        bench.drain.set()
    assert endings[0].status == "queued"


def test_runtime_limit_counts_all_attempts(bench: Bench) -> None:
    job = bench.submit(schedule={"max_runtime_s": 1800})
    assert bench.run(job, "crash").status == "queued"
    with bench.store.engine.begin() as connection:  # as if that attempt had taken an hour
        connection.execute(update(attempts).values(started_at=attempts.c.started_at - 3600))
    assert bench.run(job, "polite").status == "failed"
    done = bench.job(job)
    assert done.error is not None
    assert done.error["code"] == "max_runtime"


def test_runtime_limit_stops_a_running_trainer(bench: Bench) -> None:
    job = bench.submit(schedule={"max_runtime_s": 1})
    with running(bench, job, "polite") as endings:
        pid = bench.trainer_pid(job)
    assert endings[0].status == "failed"
    assert not is_running(pid)
    done = bench.job(job)
    assert done.error is not None
    assert (done.error["code"], done.error["category"]) == ("max_runtime", "user")


def test_lost_lease_kills_the_trainer_and_writes_nothing(bench: Bench) -> None:
    job = bench.submit()
    with running(bench, job, "deaf") as endings:
        pid = bench.trainer_pid(job)
        # Another worker has been given the job.
        assert bench.store.requeue(job.id, 1, crashed=False)
        second = bench.claim(job)
        before = bench.job(job)
    assert second.attempt == 2
    assert endings[0].status == "lost"
    assert not is_running(pid)
    assert bench.job(job) == before
    assert bench.live.types()[-1] != "end"


def test_lease_lost_at_the_last_moment_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = bench.submit()
    finish = bench.store.finish

    def too_late(*arguments, **options) -> bool:
        bench.store.requeue(job.id, 1, crashed=False)
        return finish(*arguments, **options)

    monkeypatch.setattr(bench.store, "finish", too_late)
    assert bench.run(job, "success").status == "lost"
    assert bench.job(job).status == "queued"
    assert "end" not in bench.live.types()


def test_killed_supervisor_takes_its_trainer_along(bench: Bench) -> None:
    job = bench.submit()
    program = f"""
import sys
from opd_core.runs import database
from opd_core.runs.live import LiveWriter
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from worker.supervisor import Supervisor
settings = Settings()
store = RunStore(database.connect(settings.database_url))
claim = store.claim({job.id!r}, "doomed", settings.lease_s)
command = (sys.executable, {str(FAKE_TRAINER)!r}, "deaf")
Supervisor(claim, store, LiveWriter(None), settings, draining=lambda: False, command=command).run()
"""
    environment = {**os.environ, "OPD_HOME": str(bench.settings.home), "OPD_LEASE_S": "3"}
    supervisor = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        pid = bench.trainer_pid(job)
    finally:
        supervisor.kill()
        supervisor.wait()
    wait_until(lambda: not is_running(pid), seconds=5.0)

    # What the killed attempt left in its scratch folder goes with the next one.
    scratch = bench.settings.home / "run" / "jobs"
    assert len(list(scratch.iterdir())) == 1
    wait_until(lambda: bench.store.due(0.0) != [])  # the lease has expired
    assert bench.run(job, "success").status == "succeeded"
    assert list(scratch.iterdir()) == []


FULL = {"code": "disk_full", "message": "the disk is full", "category": "resource", "retryable": True}


@pytest.mark.parametrize(
    ("stop", "exit_code", "report", "error", "status", "crashed"),
    [
        (None, 0, {}, None, "succeeded", False),
        (None, 0, None, None, "failed", False),
        (None, 2, None, {"code": "x", "category": "user", "retryable": False}, "failed", False),
        (None, 2, None, None, "queued", True),  # Python's own exit code for bad usage
        (None, 1, None, {"code": "x", "category": "system", "retryable": False}, "failed", False),
        (None, 1, None, {"code": "x", "category": "system", "retryable": True}, "queued", True),
        (None, 75, None, {"code": "teacher_unreachable", "message": "x", "retryable": True}, "paused", False),
        (None, 75, None, {"code": "rollout_unreachable", "message": "x", "retryable": True}, "paused", False),
        (Stop.CANCEL, 75, None, {"code": "teacher_unreachable", "message": "x", "retryable": True}, "cancelled", False),
        (None, 75, None, None, "queued", True),  # nobody asked: an endless loop must be counted
        (None, -9, None, None, "queued", True),
        (Stop.DRAIN, 75, None, None, "queued", False),
        (Stop.DRAIN, -9, None, None, "queued", False),
        (Stop.DRAIN, 0, {}, None, "succeeded", False),
        (Stop.PAUSE, 75, None, None, "paused", False),
        (Stop.PAUSE, -9, None, None, "paused", False),
        (Stop.PAUSE, 0, {}, None, "succeeded", False),
        (Stop.DISK, 75, None, None, "queued", False),
        (Stop.DISK, 1, None, FULL, "queued", False),
        (None, 1, None, FULL, "queued", True),
        (Stop.CANCEL, 1, None, FULL, "cancelled", False),
        (Stop.MAX_RUNTIME, 75, None, None, "failed", False),
        (Stop.MAX_RUNTIME, 0, {}, None, "succeeded", False),
        (Stop.CANCEL, 0, {}, None, "cancelled", False),
        (Stop.CANCEL, -9, None, None, "cancelled", False),
        (Stop.LOST, 0, {}, None, "lost", False),
    ],
)
def test_verdicts(stop, exit_code, report, error, status, crashed) -> None:
    ending = judge(stop, exit_code, report, error, 60.0)
    assert (ending.status, ending.crashed) == (status, crashed)


def test_a_log_that_cannot_be_written_does_not_hide_how_the_attempt_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFiles, "write_bytes", full)
    job = bench.submit()
    assert bench.run(job, "success").status == "succeeded"
    assert bench.job(job).status == "succeeded"


def test_checkpoints_that_went_without_a_word_are_not_offered_any_more(bench: Bench) -> None:
    job = bench.submit()
    bench.run(job, "crash")
    claim = bench.claim(job)
    for step in (3, 6):
        name = f"step-{step:06d}.a2"
        bench.store.add_checkpoint(job.id, 2, name=name, step=step, kind="training", size_bytes=0, files=[])
    job_files(bench.settings.artifacts_url, job.id).write_json("checkpoints/step-000003.a2/manifest.json", {})
    bench.store.requeue(job.id, claim.attempt, crashed=True)
    bench.run(job, "crash")
    (left,) = bench.store.list_checkpoints(job.id)
    assert (left.name, bench.job(job).latest_checkpoint) == ("step-000003.a2", left.id)
