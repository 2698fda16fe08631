"""The service end to end: HTTP in, a Celery worker, a real trainer, and what is left on disk."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Running, processes_of, running_service
from tests.waiting import wait_until
from tests.worker.conftest import is_running

pytestmark = pytest.mark.service

# Long enough to be caught in the middle, with checkpoints to come back to.
LONG: dict[str, Any] = {"steps": 400, "evaluate_every": 0, "checkpoint_every": 5}


def wait_for_step(running: Running, job_id: str, step: int) -> int:
    """Wait until the job has trained so far; the trainer's process id."""
    wait_until(lambda: (running.client.job(job_id).progress.step or 0) >= step, f"step {step}", 120)
    pid = running.client.attempts(job_id).data[-1].pid
    assert pid is not None
    return pid


def test_job_from_http_to_a_model_on_disk(running: Running) -> None:
    job = running.client.submit(running.spec())
    heard = list(running.client.stream(job.id))
    done = running.client.job(job.id)
    assert done.status == "succeeded", done.error
    assert (done.attempt, done.progress.step) == (1, 4)
    assert done.accuracy.after is not None
    assert running.client.report(job.id).accuracy["after"] == done.accuracy.after

    kinds = [kind for _, kind, _ in heard]
    assert kinds[-1] == "end"
    assert {"status", "progress", "metrics", "records", "checkpoint", "event", "accuracy"} <= set(kinds)
    assert running.client.metrics(job.id).steps == [0, 1, 2, 3, 4]
    assert [step.step for step in running.client.steps(job.id).data] == [1, 2, 3, 4]

    directory = running.run_directory(job.id)
    assert json.loads((directory / "report.json").read_text())["seed"] == 0
    assert (directory / "student" / "model.safetensors").exists()
    assert (directory / "logs" / "attempt-1.log").exists()
    kept = {checkpoint.name for checkpoint in running.client.checkpoints(job.id).data}
    assert kept == {"step-000002.a1", "step-000004.a1", "student"}


def test_user_error_fails_the_job_with_one_sentence(running: Running) -> None:
    task = running.spec()["task"] | {"prompt_column": "nothing"}
    job = running.client.submit(running.spec(task=task))
    done = running.client.wait(job.id, timeout_s=120)
    assert done.status == "failed"
    assert done.error is not None
    assert (done.error.category, done.error.param) == ("user", "task.prompt_column")
    assert not (running.run_directory(job.id) / "student").exists()


def test_cancel_stops_the_process_and_keeps_a_checkpoint(running: Running) -> None:
    job = running.client.submit(running.spec(schedule=LONG))
    pid = wait_for_step(running, job.id, 6)
    assert is_running(pid)
    assert running.client.cancel(job.id).status == "cancelling"
    assert running.client.wait(job.id, timeout_s=60, poll_s=0.2).status == "cancelled"
    assert not is_running(pid)
    checkpoints = running.client.checkpoints(job.id).data
    latest = checkpoints[-1]
    manifest = running.run_directory(job.id) / "checkpoints" / latest.name / "manifest.json"
    assert latest.step >= 6  # saved on the way out, beyond the last regular one
    assert json.loads(manifest.read_text())["step"] == latest.step
    assert running.client.attempts(job.id).data[-1].exit_code == 75


def test_killed_trainer_is_resumed_from_its_checkpoint(running: Running) -> None:
    schedule = LONG | {"steps": 60}
    job = running.client.submit(running.spec(schedule=schedule))
    pid = wait_for_step(running, job.id, 6)
    os.kill(pid, signal.SIGKILL)
    done = running.client.wait(job.id, timeout_s=180)
    assert done.status == "succeeded", done.error
    assert (done.attempt, done.progress.step) == (2, 60)
    events = {event.type: event for event in running.client.events(job.id).data}
    assert "SIGKILL" in events["trainer_crashed"].message
    assert events["resumed"].data["step"] >= 5
    assert running.client.metrics(job.id).steps == list(range(61))
    first, second = running.client.attempts(job.id).data
    assert (first.signal, second.exit_code) == (signal.SIGKILL, 0)


def test_killed_worker_takes_its_trainer_along_and_the_job_goes_on(running: Running) -> None:
    job = running.client.submit(running.spec(schedule=LONG | {"steps": 60}))
    trainer = wait_for_step(running, job.id, 6)
    # Which job it holds is told with its next heartbeat only.
    (worker,) = [worker for worker in running.client.workers().data if "cpu" in worker.queues]
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not is_running(trainer), "the trainer outlived its worker", 10)
    done = running.client.wait(job.id, timeout_s=180)  # another worker, once the lease has expired
    assert (done.status, done.attempt) == ("succeeded", 2)
    assert running.client.metrics(job.id).steps == list(range(61))


def test_stopped_service_gives_its_job_back_and_takes_it_up_again(tiny_world: Any, tmp_path: Path) -> None:
    with running_service(tmp_path, tiny_world) as first:
        # Enough for the parts that stop before the worker does.
        job = first.client.submit(first.spec(schedule=LONG))
        wait_for_step(first, job.id, 6)
        first.up.send_signal(signal.SIGINT)
        assert first.up.wait(timeout=60) == 0
        assert not processes_of(tmp_path)
    with running_service(tmp_path, tiny_world) as second:
        done = second.client.wait(job.id, timeout_s=180)
        assert (done.status, done.attempt) == ("succeeded", 2)
        events = {event.type: event for event in second.client.events(job.id).data}
        assert events["requeued"].data == {"crashes": 0}
        assert events["resumed"].data["step"] >= 6  # nothing was lost: it was saved on the way out
