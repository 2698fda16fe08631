"""The fleet as tables: workers, queues, and starts that ended badly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import pandas as pd

from api.schemas import Attempt, Job, Queue, Worker
from dashboard.shaping.runs import attempt_ending
from dashboard.shaping.text import age, duration, seconds_since

START_WORKER = "celery -A worker.app worker -c 1 -Q {queue}"


class Memory(NamedTuple):
    """What a training process holds, in GiB; None where it is not known. Of a GPU: the most of a step."""

    process_gib: float | None
    gpu_gib: float | None


def worker_table(
    workers: Sequence[Worker], jobs: Mapping[str, Job], memory: Mapping[str, Memory] | None = None
) -> pd.DataFrame:
    """The living first, by name; what each does and for how long its lease still holds. ``memory`` by job."""
    held = memory or {}
    rows = sorted(workers, key=lambda one: (not one.alive, one.name))
    return pd.DataFrame(
        {
            "Worker": [one.name for one in rows],
            "State": [[_state(one)] for one in rows],
            "Run": [_run_of(one, jobs) for one in rows],
            "Lease": ["–" if one.lease_left_s is None else f"{duration(one.lease_left_s)} left" for one in rows],
            "Memory": [_memory(held.get(one.job_id or "")) for one in rows],
            "Heard of": [f"{age(one.age_s)} ago" for one in rows],
            "Queues": [", ".join(one.queues) for one in rows],
            "Host": [f"{one.host} · {one.pid}" for one in rows],
            "Labels": [" · ".join(f"{key} {value}" for key, value in one.labels.items()) for one in rows],
        }
    )


def _state(worker: Worker) -> str:
    if not worker.alive:
        return "silent"
    return "busy" if worker.job_id else "idle"


def _memory(held: Memory | None) -> str:
    if held is None or held.process_gib is None:
        return "–"
    on_gpu = "" if held.gpu_gib is None else f" · GPU {held.gpu_gib:.2f} GiB"
    return f"{held.process_gib:.2f} GiB{on_gpu}"


def _run_of(worker: Worker, jobs: Mapping[str, Job]) -> str:
    if worker.job_id is None:
        return "–"
    job = jobs.get(worker.job_id)
    return worker.job_id if job is None else job.name


def queue_table(queues: Sequence[Queue]) -> pd.DataFrame:
    """One row per queue."""
    return pd.DataFrame(
        {
            "Queue": [one.name for one in queues],
            "Waiting": [one.waiting for one in queues],
            "Longest wait": ["–" if one.oldest_s is None else age(one.oldest_s) for one in queues],
            "Running": [one.running for one in queues],
            "Paused": [one.paused for one in queues],
            "Workers": [one.workers for one in queues],
        }
    )


def unserved(queues: Sequence[Queue]) -> list[Queue]:
    """Queues in which something waits and that no living worker serves."""
    return [one for one in queues if one.waiting and not one.workers]


def failure_table(attempts: Sequence[Attempt], jobs: Mapping[str, Job], now: datetime) -> pd.DataFrame:
    """Newest first: which run, where, how it ended."""
    names = [jobs[one.job_id].name if one.job_id in jobs else one.job_id for one in attempts]
    return pd.DataFrame(
        {
            "Run": names,
            "Attempt": [one.attempt for one in attempts],
            "Why": [attempt_ending(one) for one in attempts],
            "Worker": [one.worker for one in attempts],
            "Process": [f"{one.host or '?'} · {one.pid or '?'}" for one in attempts],
            "Ended": [f"{age(seconds_since(one.finished_at, now))} ago" for one in attempts],
            "Lasted": [
                duration((one.finished_at - one.started_at).total_seconds()) if one.finished_at else "–"
                for one in attempts
            ],
        }
    )
