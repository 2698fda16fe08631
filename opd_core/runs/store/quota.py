"""How many jobs may wait at a time, in all and of one token: a queue that nobody can fill for everybody else."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from opd_core.runs import tables as t
from opd_core.runs.states import WAITING


class QueueFull(RuntimeError):
    """As many jobs as may wait are waiting."""


@dataclass(frozen=True)
class Quota:
    """The most jobs that may be queued or paused."""

    per_token: int
    total: int


def require_room(connection: Connection, quota: Quota, created_by: str | None) -> None:
    """Raise QueueFull unless one more job may wait. Call it in the transaction that writes the job."""
    jobs = t.jobs.c
    query = select(func.count()).select_from(t.jobs).where(jobs.status.in_(WAITING))
    if connection.execute(query).scalar_one() >= quota.total:
        raise QueueFull(f"{quota.total} jobs are queued or paused, the most of this service (OPD_WAITING_TOTAL)")
    if connection.execute(query.where(jobs.created_by == created_by)).scalar_one() >= quota.per_token:
        raise QueueFull(
            f"{quota.per_token} jobs of {created_by!r} are queued or paused, the most of one token "
            "(OPD_WAITING_PER_TOKEN)"
        )
