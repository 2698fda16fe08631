"""Rows of the run records as shapes of the HTTP interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from api import schemas as s
from opd_core.runs import rows
from opd_core.runs.store import WORKER_ALIVE_S


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _dated(row: Any) -> dict[str, Any]:
    """The row's fields with its times as UTC dates."""
    found = {one.name: getattr(row, one.name) for one in fields(row)}  # asdict would copy whole specs
    return {key: _time(value) if key.endswith("_at") and value is not None else value for key, value in found.items()}


def job(row: rows.Job) -> s.Job:
    """A job."""
    return s.Job.model_validate(_dated(row))


def event(row: rows.Event) -> s.Event:
    """An event."""
    return s.Event.model_validate(_dated(row))


def checkpoint(row: rows.Checkpoint) -> s.Checkpoint:
    """A checkpoint."""
    return s.Checkpoint.model_validate(_dated(row))


def attempt(row: rows.Attempt) -> s.Attempt:
    """An attempt."""
    return s.Attempt.model_validate(_dated(row))


def worker(row: rows.Worker) -> s.Worker:
    """A worker."""
    return s.Worker.model_validate({**_dated(row), "alive": row.age_s < WORKER_ALIVE_S})


def queues(counts: Mapping[str, rows.QueueCount], workers: Sequence[rows.Worker]) -> list[s.Queue]:
    """Every queue that has jobs or a living worker, by name."""
    alive = Counter(queue for one in workers if one.age_s < WORKER_ALIVE_S for queue in one.queues)
    empty = rows.QueueCount(waiting=0, running=0, paused=0, oldest_s=None)
    return [
        s.Queue.model_validate({"name": name, "workers": alive[name], **asdict(counts.get(name, empty))})
        for name in sorted({*counts, *alive})
    ]


def metrics(
    rows: Sequence[tuple[int, dict[str, float | None]]], keys: Sequence[str] | None, max_points: int | None
) -> s.Metrics:
    """Scalars by column, thinned to every k-th step; the last step and evaluated ones always stay."""
    stride = 1 if max_points is None else max(1, -(-len(rows) // max_points))
    last = len(rows) - 1
    kept = [
        row
        for index, row in enumerate(rows)
        if index % stride == 0 or index == last or row[1].get("accuracy") is not None
    ]
    names = keys if keys is not None else sorted({key for _, values in kept for key in values})
    series = {name: [values.get(name) for _, values in kept] for name in names}
    return s.Metrics(steps=[step for step, _ in kept], series=series)
