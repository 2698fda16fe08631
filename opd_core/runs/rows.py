"""What the store hands out: plain immutable rows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from sqlalchemy import RowMapping


@dataclass(frozen=True, kw_only=True)
class _Row:
    @classmethod
    def of(cls, mapping: RowMapping) -> Self:
        return cls(**{field.name: mapping[field.name] for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Job(_Row):
    """A job as it stands. Times are UTC epoch seconds; ``spec`` as submitted, ``resolved_spec`` as trained."""

    id: str
    name: str
    status: str
    phase: str
    desired_state: str
    priority: int
    attempt: int
    crashes: int
    max_restarts: int
    queue: str
    recipe: str
    worker: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    progress: dict[str, Any]
    accuracy: dict[str, Any]
    latest_checkpoint: str | None
    metadata: dict[str, Any]
    save_wanted: bool
    created_by: str | None
    error: dict[str, Any] | None
    warnings: list[str]
    spec: dict[str, Any]
    resolved_spec: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim(_Row):
    """The right to work on a job: every write of this attempt carries ``attempt``."""

    job_id: str
    attempt: int
    queue: str
    spec: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Event(_Row):
    """One line of a job's audit log. ``seq`` counts 1, 2, 3... per job without gaps."""

    id: str
    job_id: str
    seq: int
    created_at: float
    level: str
    type: str
    message: str
    data: dict[str, Any]
    attempt: int | None


@dataclass(frozen=True, kw_only=True)
class Attempt(_Row):
    """One claim of a job and how it ended."""

    job_id: str
    attempt: int
    worker: str
    host: str | None
    pid: int | None
    started_at: float
    finished_at: float | None
    exit_code: int | None
    signal: int | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Checkpoint(_Row):
    """A published directory of a run. ``files`` are {id, name, size, sha256}."""

    id: str
    job_id: str
    name: str
    step: int
    attempt: int
    kind: str
    size_bytes: int
    created_at: float
    files: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Worker(_Row):
    """A worker's last sign of life, ``age_s`` seconds ago by the database's clock."""

    name: str
    host: str
    pid: int
    queues: list[str]
    labels: dict[str, Any]
    job_id: str | None
    started_at: float
    seen_at: float
    age_s: float
    lease_left_s: float | None


@dataclass(frozen=True, kw_only=True)
class QueueCount(_Row):
    """The jobs of a queue that are not over; ``oldest_s`` is the age of the one that waits longest."""

    waiting: int
    running: int
    paused: int
    oldest_s: float | None
