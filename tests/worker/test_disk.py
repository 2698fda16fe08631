"""Jobs and disks that fill up: nobody starts, who runs saves and waits, and all go on when there is room."""

from __future__ import annotations

import shutil
import time
from collections import namedtuple

import pytest

from opd_core.runs.settings import Settings
from tests.waiting import wait_until
from tests.worker.conftest import Bench
from tests.worker.test_supervisor import running
from worker import tasks
from worker.disk import WAITING, Disks

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How many MB are free on every disk; may be changed."""
    room = {"mb": 2000.0}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(room["mb"] * 1e6)))
    return room


def test_a_start_wants_more_room_than_going_on(bench: Bench, free: dict[str, float]) -> None:
    disks = Disks(bench.settings)
    free["mb"] = 1100
    assert disks.too_full_to_go_on() is None
    assert disks.too_full_to_start() == (
        f"1100 MB are free in {bench.settings.home}, 1280 MB are wanted (OPD_DISK_LOW_MB)"
    )
    free["mb"] = 1000
    assert disks.too_full_to_go_on() is not None
    off = Disks(Settings(home=bench.settings.home, disk_low_mb=0))
    free["mb"] = 0
    assert off.too_full_to_start() is None


def test_an_object_store_is_no_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or Usage(0, 0, 0))
    Disks(Settings(home=bench.settings.home, artifacts_url="memory://runs")).too_full_to_start()
    assert asked == [bench.settings.home]


def test_a_running_job_saves_and_waits_and_no_crash_is_counted(bench: Bench, free: dict[str, float]) -> None:
    job = bench.submit()
    with running(bench, job, "polite") as endings:
        bench.trainer_pid(job)
        free["mb"] = 500
    assert (endings[0].status, endings[0].crashed) == ("queued", False)
    rests = bench.job(job)
    assert (rests.status, rests.phase, rests.crashes) == ("queued", WAITING, 0)
    assert [checkpoint.step for checkpoint in bench.store.list_checkpoints(job.id)] == [7]
    (event,) = bench.events(job, "disk_low")
    assert "500 MB are free" in event.message
    assert bench.store.list_attempts(job.id)[0].reason == "waits for disk space (exit code 75)"
    assert bench.store.list_recent_attempts(failed=True) == []
    assert bench.store.due(30) == []  # not at once
    free["mb"] = 2000
    assert bench.run(bench.job(job), "success").status == "succeeded"


def test_a_bell_beside_a_full_disk_leaves_the_job_in_the_queue_and_says_why(
    bench: Bench, free: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPD_HOME", str(bench.settings.home))
    job = bench.submit()
    free["mb"] = 1
    for _ in range(2):
        tasks.run_job.run(job.id)
    waits = bench.job(job)
    assert (waits.status, waits.phase, waits.attempt) == ("queued", WAITING, 0)
    assert len(bench.events(job, "waiting")) == 1


def test_a_full_disk_is_named_and_tried_again_later(bench: Bench) -> None:
    job = bench.submit(schedule={"max_restarts": 1})
    ending = bench.run(job, "disk-full")
    assert (ending.status, ending.crashed) == ("queued", True)
    assert bench.job(job).phase == "waiting after a full disk"
    assert bench.store.due(30) == []
    assert "the disk is full" in bench.events(job, "trainer_crashed")[0].message
    assert bench.store.list_attempts(job.id)[0].reason == "disk_full (exit code 1)"
    bench.run(bench.job(job), "disk-full")
    done = bench.job(job)
    assert done.status == "failed"
    assert done.error is not None
    assert (done.error["code"], done.error["category"]) == ("disk_full", "resource")
    assert "lost 2 times and schedule.max_restarts is 1" in done.error["message"]
    assert "the disk is full" in done.error["message"]


def test_a_kill_for_memory_is_told_from_another_kill(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([4, 5, 5, 5])
    monkeypatch.setattr("worker.supervisor.oom_kills", lambda: next(counts))
    job = bench.submit(schedule={"max_restarts": 1}, batching={"micro_tokens": 4096})
    bench.run(job, "crash")
    assert bench.store.list_attempts(job.id)[0].reason == "out_of_memory (killed by SIGKILL)"
    assert "lower batching.micro_tokens (now 4096)" in bench.events(job, "trainer_crashed")[0].message
    bench.run(bench.job(job), "crash")
    assert bench.store.list_attempts(job.id)[1].reason == "killed by SIGKILL"
    error = bench.job(job).error
    assert error is not None
    assert error["code"] == "worker_lost"


def test_a_trainer_that_only_loads_is_let_be(bench: Bench, free: dict[str, float]) -> None:
    """It writes nothing yet, and what it has loaded would be lost."""
    job = bench.submit()
    free["mb"] = 1
    with running(bench, job, "loading") as endings:
        wait_until(lambda: bench.job(job).phase == "loading models")
        time.sleep(1.0)  # several looks at the disk
        bench.store.request_cancel(job.id)
    assert endings[0].status == "cancelled"
    assert bench.events(job, "disk_low") == []
