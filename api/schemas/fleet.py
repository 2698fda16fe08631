"""Who works, and what waits."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.schemas.base import Json, Schema


class Worker(Schema):
    """A worker's last sign of life."""

    object: Literal["worker"] = "worker"
    name: str
    host: str
    pid: int
    queues: list[str]
    labels: Json = {}
    job_id: str | None = None
    alive: bool
    started_at: datetime
    seen_at: datetime
    age_s: float = Field(0.0, description="Seconds since then, by the service's clock.")
    lease_left_s: float | None = Field(
        None, description="Seconds until its job is taken back unless it is heard of; null while idle."
    )


class Queue(Schema):
    """A queue's jobs that are not over, and the living workers that serve it."""

    object: Literal["queue"] = "queue"
    name: str
    waiting: int
    running: int
    paused: int
    workers: int
    oldest_s: float | None = Field(None, description="Age of the job that waits longest, in seconds.")
