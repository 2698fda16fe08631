"""Pause, resume, save now, fork and delete over the real service: a Celery worker and real trainers."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file

from api.client import ApiError
from tests.cli.running import Running
from tests.integration.test_service import LONG, wait_for_step
from tests.waiting import wait_until
from tests.worker.conftest import is_running

pytestmark = pytest.mark.service


def weights(running: Running, job_id: str) -> dict[str, Any]:
    return load_file(running.run_directory(job_id) / "student" / "model.safetensors")


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(bool((first[name] == second[name]).all()) for name in first)


def test_paused_and_resumed_ends_with_the_bits_of_an_uninterrupted_run(running: Running) -> None:
    client = running.client
    spec = running.spec(schedule=LONG | {"steps": 150, "checkpoint_every": 0})
    paused = client.submit(spec)
    pid = wait_for_step(running, paused.id, 5)
    assert client.save(paused.id).save_wanted
    wait_until(lambda: len(client.checkpoints(paused.id).data) == 1, "the wished checkpoint", 60)
    assert client.pause(paused.id).status == "pausing"
    wait_until(lambda: client.job(paused.id).status == "paused", "paused", 60)
    assert not is_running(pid)
    saved = client.checkpoints(paused.id).data
    assert 5 <= saved[0].step < saved[-1].step < 150  # the wished one, and the one of the pause
    with pytest.raises(ApiError) as refused:
        client.delete(paused.id)
    assert refused.value.status == 409

    whole = client.submit(spec)  # the worker is free
    assert client.wait(whole.id, timeout_s=180).status == "succeeded"
    assert client.job(paused.id).status == "paused"

    assert client.resume(paused.id).status == "queued"
    done = client.wait(paused.id, timeout_s=180)
    assert (done.status, done.attempt) == ("succeeded", 2)
    events = {event.type: event for event in client.events(paused.id).data}
    assert events["resumed"].data["step"] == saved[-1].step  # nothing was done twice
    assert client.metrics(paused.id).steps == list(range(151))
    assert same(weights(running, paused.id), weights(running, whole.id))


def test_fork_starts_from_the_copied_student_and_survives_its_source(running: Running) -> None:
    client = running.client
    source = client.wait(client.submit(running.spec()).id, timeout_s=120)
    assert source.status == "succeeded"
    learned = weights(running, source.id)
    # A learning rate that moves nothing: what the fork exports is what it started with.
    still = {"lr": 1e-30, "warmup_steps": 0}
    fork = client.fork(source.id, name="fork", optimizer=still)
    start = running.run_directory(fork.id) / "start"
    client.delete(source.id)
    assert not running.run_directory(source.id).exists()
    done = client.wait(fork.id, timeout_s=120)
    assert done.status == "succeeded", done.error
    assert done.resolved_spec["from"]["job"] == source.id
    assert done.accuracy.before == source.accuracy.after
    assert same(weights(running, fork.id), learned)
    assert (start / "manifest.json").exists()
    client.delete(fork.id)
    assert [job.id for job in client.jobs(limit=100).data if job.id in (source.id, fork.id)] == []
