"""Jobs as users see them: created, listed, read, renamed, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, null, select
from sqlalchemy.exc import IntegrityError

from opd_core.runs import tables as t
from opd_core.runs.ids import new_id
from opd_core.runs.plain import storable
from opd_core.runs.rows import Job
from opd_core.runs.states import TERMINAL, WAITING, InvalidTransition
from opd_core.runs.store.base import Base
from opd_core.runs.store.labels import labelled, set_labels
from opd_core.runs.store.quota import Quota, require_room
from opd_core.runs.store.transaction import JOB, append_event, find_job, set_job, the_job
from opd_core.spec import JobSpec

IDEMPOTENCY_S = 24 * 3600.0

Idempotency = tuple[str, str, str]
"""(principal, key, sha256 of the request)"""


class IdempotencyMismatch(ValueError):
    """The key was used before, for another request."""


class NotWaiting(ValueError):
    """The priority of a job that waits for nothing was to be changed."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the priority of a job that is {status} means nothing; possible while it is queued or paused")


class Jobs(Base):
    """Records of jobs, newest first."""

    def create_job(
        self,
        spec: JobSpec,
        resolved: JobSpec,
        warnings: Sequence[str] = (),
        *,
        id: str | None = None,
        idempotency: Idempotency | None = None,
        created_by: str | None = None,
        request_id: str | None = None,
        quota: Quota | None = None,
    ) -> Job:
        """Write a queued job and commit; ring the bell afterwards. ``id`` is for what is prepared before it exists.

        With a known idempotency key it returns the job that the key made, or raises IdempotencyMismatch. Raises
        QueueFull when ``quota`` leaves no room. ``created_by`` is a token's name; ``request_id`` goes to the event.
        """
        job_id = id or new_id("job")
        try:
            with self._write() as connection:
                if idempotency:
                    old = t.idempotency.c.created_at < t.db_now() - IDEMPOTENCY_S
                    connection.execute(delete(t.idempotency).where(old))
                    if known := _replay(connection, idempotency):
                        return known
                if quota:
                    require_room(connection, quota, created_by)
                connection.execute(
                    insert(t.jobs).values(
                        id=job_id,
                        name=spec.name,
                        recipe=spec.recipe,
                        queue=spec.resources.queue,
                        status="queued",
                        phase="waiting for a worker",
                        desired_state="run",
                        priority=spec.priority,
                        attempt=0,
                        crashes=0,
                        max_restarts=resolved.schedule.max_restarts,
                        created_at=t.db_now(),
                        event_seq=0,
                        spec=spec.model_dump(mode="json"),
                        resolved_spec=resolved.model_dump(mode="json"),
                        progress={},
                        accuracy={},
                        warnings=list(warnings),
                        error=null(),
                        report=null(),
                        metadata=dict(spec.metadata),
                        save_wanted=False,
                        created_by=created_by,
                    )
                )
                set_labels(connection, job_id, spec.metadata)
                if idempotency:
                    principal, key, body_hash = idempotency
                    connection.execute(
                        insert(t.idempotency).values(
                            principal=principal,
                            key=key,
                            body_hash=body_hash,
                            job_id=job_id,
                            created_at=t.db_now(),
                        )
                    )
                asked = {"created_by": created_by, "request_id": request_id}
                data = {key: value for key, value in asked.items() if value is not None}
                append_event(connection, job_id, "info", "created", f"queued on {spec.resources.queue}", data)
                return the_job(connection, job_id)
        except IntegrityError:
            # Another process used the same key between our look and our insert.
            if idempotency and (known := self.replayed(idempotency)):
                return known
            raise

    def replayed(self, idempotency: Idempotency) -> Job | None:
        """The job that an idempotency key made. Raises IdempotencyMismatch when it was for another request."""
        with self._read() as connection:
            return _replay(connection, idempotency)

    def get_job(self, job_id: str) -> Job | None:
        """The job, or None."""
        with self._read() as connection:
            return find_job(connection, job_id)

    def list_jobs(
        self,
        limit: int = 20,
        after: str | None = None,
        status: str | None = None,
        name_contains: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[list[Job], bool]:
        """Newest first, starting behind the id ``after``; and whether there are more.

        ``metadata``: only jobs that have all of it.
        """
        # The ids first, from indexes alone: a job's row is kilobytes wide, and a search may pass many.
        ids, key = labelled(metadata or {})
        ids = ids.order_by(key.desc()).limit(limit + 1)
        if after is not None:
            ids = ids.where(key < after)
        if status is not None:
            ids = ids.where(t.jobs.c.status == status)
        if name_contains:
            ids = ids.where(t.jobs.c.name.icontains(storable(name_contains), autoescape=True))
        query = select(*JOB).where(t.jobs.c.id.in_(ids.scalar_subquery())).order_by(t.jobs.c.id.desc())
        with self._read() as connection:
            found = [Job.of(row) for row in connection.execute(query).mappings()]
        return found[:limit], len(found) > limit

    def count_by_status(self) -> dict[str, int]:
        """Status -> number of jobs."""
        query = select(t.jobs.c.status, func.count()).group_by(t.jobs.c.status)
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def get_report(self, job_id: str) -> dict[str, Any] | None:
        """The report of a finished run, or None while there is none."""
        with self._read() as connection:
            return connection.execute(select(t.jobs.c.report).where(t.jobs.c.id == job_id)).scalar_one_or_none()

    def update_job(
        self,
        job_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        priority: int | None = None,
    ) -> Job:
        """Rename a job, replace its metadata, move it in its queue. Its spec stays what was submitted.

        Raises JobNotFound, or NotWaiting for the priority of a job that is not waiting.
        """
        changes: dict[str, Any] = {
            "name": name,
            "metadata": None if metadata is None else dict(metadata),
            "priority": priority,
        }
        changes = {key: value for key, value in changes.items() if value is not None}
        with self._write() as connection:
            job = the_job(connection, job_id, lock=True)
            if priority is not None and job.status not in WAITING:
                raise NotWaiting(job.status)
            if changes:
                set_job(connection, job_id, **changes)
                if metadata is not None:
                    set_labels(connection, job_id, metadata)
                append_event(connection, job_id, "info", "updated", "changed: " + ", ".join(changes), changes)
            return the_job(connection, job_id)

    def require_ended(self, job_id: str) -> None:
        """Raise InvalidTransition for a job that may not be deleted yet."""
        with self._read() as connection:
            _require_ended(the_job(connection, job_id))

    def delete_job(self, job_id: str) -> None:
        """Forget a job that has ended, with everything that was recorded about it.

        Raises JobNotFound, or InvalidTransition for a job that has not ended.
        """
        with self._write() as connection:
            _require_ended(the_job(connection, job_id, lock=True))
            connection.execute(delete(t.jobs).where(t.jobs.c.id == job_id))


def _require_ended(job: Job) -> None:
    if job.status not in TERMINAL:
        raise InvalidTransition(job.status, "deleted")


def _replay(connection: Connection, idempotency: Idempotency) -> Job | None:
    principal, key, body_hash = idempotency
    table = t.idempotency.c
    query = select(table.body_hash, table.job_id).where(
        table.principal == principal, table.key == key, table.created_at >= t.db_now() - IDEMPOTENCY_S
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.body_hash != body_hash:
        raise IdempotencyMismatch("this Idempotency-Key was used for another request; use a fresh key")
    return the_job(connection, row.job_id)
