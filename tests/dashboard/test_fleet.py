"""The fleet as tables."""

from __future__ import annotations

from datetime import timedelta

from api.schemas import Attempt, Job, Queue, Worker
from dashboard.shaping import fleet
from tests.dashboard import fake_fleet
from tests.dashboard.fake_api import FAILED, HOSTILE, RUNNING, START, World

JOBS = {job_id: Job.model_validate(row) for job_id, row in World().jobs.items()}


def test_workers_with_what_they_do() -> None:
    rows = [Worker.model_validate(row) for row in reversed(fake_fleet.workers(START.isoformat(), RUNNING))]
    table = fleet.worker_table(rows, JOBS, {RUNNING: fleet.Memory(0.5, None)})
    assert list(table["Worker"]) == ["cpu0@node-1", "cpu1@node-1", "gpu0@node-2"]  # the living first
    assert list(table["State"]) == [["busy"], ["idle"], ["silent"]]
    assert list(table["Run"]) == ["demo-live", "–", "–"]
    assert (table["Lease"][0], table["Lease"][1]) == ("24 s left", "–")
    assert list(table["Memory"]) == ["0.50 GiB", "–", "–"]
    on_gpu = fleet.worker_table(rows, JOBS, {RUNNING: fleet.Memory(2.0, 40.25)})
    assert on_gpu["Memory"][0] == "2.00 GiB · GPU 40.25 GiB"
    assert table["Heard of"][2] == "2 h ago"
    assert fleet.worker_table(rows, {})["Run"][0] == RUNNING


def test_a_queue_without_a_worker_is_told() -> None:
    rows = [Queue.model_validate(row) for row in fake_fleet.queues()]
    assert list(fleet.queue_table(rows)["Longest wait"]) == ["42 s", "1 h"]
    assert [queue.name for queue in fleet.unserved(rows)] == ["gpu"]


def test_failures_name_the_run_and_the_reason() -> None:
    rows = [Attempt.model_validate(row) for row in fake_fleet.failures(START.isoformat(), FAILED, HOSTILE)]
    table = fleet.failure_table(rows, JOBS, START + timedelta(minutes=5))
    assert list(table["Run"]) == ["bad column"] * 2
    assert list(table["Why"]) == ["killed by SIGKILL", f"exit code 1 {HOSTILE}"]
    assert set(table["Ended"]) == {"5 min ago"}
