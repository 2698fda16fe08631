"""Pieces of a transaction: what the parts of the store do to a job that they have in hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, func, insert, null, select, update

from opd_core.runs import tables as t
from opd_core.runs.ids import new_id
from opd_core.runs.plain import finite, storable
from opd_core.runs.rows import Event, Job
from opd_core.runs.states import ACTIVE, require

Level = Literal["info", "warning", "error"]


JOB = tuple(t.jobs.c[one.name] for one in fields(Job))
"""What ``Job.of`` reads. The rest is not fetched: a finished job's report alone is larger than all of it."""


class JobNotFound(LookupError):
    """No job of that id."""


def held(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    jobs = t.jobs.c
    return jobs.id == job_id, jobs.attempt == attempt, jobs.status.in_(ACTIVE)


def held_job(connection: Connection, job_id: str, attempt: int) -> Job | None:
    """The job, locked, if this attempt still holds it."""
    query = select(*JOB).where(*held(job_id, attempt)).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Job.of(row)


def find_job(connection: Connection, job_id: str, *, lock: bool = False) -> Job | None:
    query = select(*JOB).where(t.jobs.c.id == job_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else Job.of(row)


def the_job(connection: Connection, job_id: str, *, lock: bool = False) -> Job:
    job = find_job(connection, job_id, lock=lock)
    if job is None:
        raise JobNotFound(job_id)
    return job


def set_job(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(t.jobs).where(t.jobs.c.id == job_id).values(values))


def append_event(
    connection: Connection,
    job_id: str,
    level: Level,
    type: str,
    message: str,
    data: Mapping[str, Any] | None = None,
    attempt: int | None = None,
) -> Event:
    # The row lock of this update is what keeps seq without gaps or doubles.
    counted = (
        update(t.jobs)
        .where(t.jobs.c.id == job_id)
        .values(event_seq=t.jobs.c.event_seq + 1)
        .returning(t.jobs.c.event_seq)
    )
    seq = connection.execute(counted).scalar_one_or_none()
    if seq is None:
        raise JobNotFound(job_id)
    event_id = new_id("event")
    connection.execute(
        insert(t.events).values(
            id=event_id,
            job_id=job_id,
            seq=seq,
            created_at=t.db_now(),
            level=level,
            type=type,
            message=storable(message),
            data=finite(dict(data or {})),
            attempt=attempt,
        )
    )
    return Event.of(connection.execute(select(t.events).where(t.events.c.id == event_id)).mappings().one())


def close_attempts(connection: Connection, job_id: str, reason: str) -> None:
    table = t.attempts
    connection.execute(
        update(table)
        .where(table.c.job_id == job_id, table.c.finished_at.is_(None))
        .values(finished_at=t.db_now(), reason=func.coalesce(table.c.reason, reason))
    )


def end_job(
    connection: Connection,
    job: Job,
    status: str,
    error: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Write a terminal status, its event, and close the open attempt."""
    require(job.status, status)
    failure = None
    if error is not None:
        failure = {"code": "internal", "message": "", "param": None, "category": "system", "retryable": False}
        failure |= {key: error[key] for key in failure if key in error}
    set_job(
        connection,
        job.id,
        status=status,
        phase=status,
        worker=None,
        lease_until=None,
        finished_at=t.db_now(),
        error=null() if failure is None else failure,
        report=null() if report is None else finite(dict(report)),
    )
    close_attempts(connection, job.id, status)
    message = status if failure is None else f"{status}: {failure['message']}"
    level: Level = "error" if status == "failed" else "info"
    append_event(connection, job.id, level, "finished", message, {"status": status}, job.attempt or None)


def give_back(
    connection: Connection,
    job: Job,
    *,
    crashed: bool,
    reason: str,
    error: Mapping[str, Any] | None = None,
    later: str | None = None,
) -> None:
    """A job without a worker: back to the queue, or to rest when a pause was asked for, or to its end."""
    if job.desired_state == "cancelled":
        end_job(connection, job, "cancelled")
        return
    crashes = job.crashes + crashed
    if crashes > job.max_restarts:
        lost = f"the job was lost {crashes} times and schedule.max_restarts is {job.max_restarts}; the last time: "
        failure: dict[str, Any] = {"code": "worker_lost", "message": reason, "param": "schedule.max_restarts"}
        failure |= {"retryable": True, **(error or {})}
        end_job(connection, job, "failed", failure | {"message": lost + failure["message"]})
        return
    rests = job.desired_state == "pause"
    set_job(
        connection,
        job.id,
        status="paused" if rests else "queued",
        phase="paused" if rests else later or "waiting for a worker",
        crashes=crashes,
        worker=None,
        lease_until=None,
        # as if it was rung just now: the next bell comes after a while
        rung_at=t.db_now() if later else None,
    )
    close_attempts(connection, job.id, reason)
    level: Level = "warning" if crashed else "info"
    message = f"attempt {job.attempt} ended ({reason}); {'paused' if rests else 'back in the queue'}"
    name = "paused" if rests else "requeued"
    append_event(connection, job.id, level, name, message, {"crashes": crashes}, job.attempt)
