"""Leases: who works on a job, and what becomes of it when nobody does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, and_, case, func, insert, or_, select, update

from opd_core.runs import tables as t
from opd_core.runs.rows import Claim, Job
from opd_core.runs.states import ACTIVE, TERMINAL
from opd_core.runs.store.transaction import (
    JOB,
    append_event,
    close_attempts,
    end_job,
    find_job,
    give_back,
    held,
    held_job,
    set_job,
)
from opd_core.runs.store.workers import Workers, idle_queues


class Leases(Workers):
    """Claims, beats, ends, and the reconciler's work."""

    def claim_next(self, job_id: str, worker: str, lease_s: float) -> Claim | None:
        """Answer the bell of ``job_id``: take the most urgent job that waits on its queue, else that job itself.

        A bell is a ticket for one job of the queue. The job that was passed over has its turn with the next one.
        None when there is nothing to be had.
        """
        jobs = t.jobs.c
        queue = select(jobs.queue).where(jobs.id == job_id).scalar_subquery()
        first = (
            select(jobs.id)
            .where(jobs.status == "queued", jobs.desired_state == "run", jobs.queue == queue)
            .order_by(jobs.priority.desc(), jobs.id)
            .limit(1)
            .with_for_update(skip_locked=True)  # two workers at once take two jobs
        )
        with self._write() as connection:
            chosen = connection.execute(first).scalar_one_or_none()
            return self._claim(connection, chosen or job_id, worker, lease_s)

    def claim(self, job_id: str, worker: str, lease_s: float) -> Claim | None:
        """Take a queued job, or one whose lease has expired. None when it is not to be had."""
        with self._write() as connection:
            return self._claim(connection, job_id, worker, lease_s)

    def _claim(self, connection: Connection, job_id: str, worker: str, lease_s: float) -> Claim | None:
        jobs = t.jobs.c
        expired = and_(
            jobs.status.in_(ACTIVE - {"cancelling"}),
            jobs.lease_until < t.db_now(),
            jobs.crashes < jobs.max_restarts,
        )
        taken = (
            update(t.jobs)
            .where(jobs.id == job_id, jobs.desired_state == "run", or_(jobs.status == "queued", expired))
            .values(
                status="preparing",
                phase="starting",
                attempt=jobs.attempt + 1,
                crashes=jobs.crashes + case((jobs.status == "queued", 0), else_=1),
                worker=worker,
                lease_until=t.db_now() + lease_s,
                started_at=func.coalesce(jobs.started_at, t.db_now()),
            )
            .returning(jobs.attempt, jobs.queue, jobs.resolved_spec)
        )
        row = connection.execute(taken).one_or_none()
        if row is None:
            return None
        close_attempts(connection, job_id, "lease expired")
        connection.execute(
            insert(t.attempts).values(job_id=job_id, attempt=row.attempt, worker=worker, started_at=t.db_now())
        )
        message = f"attempt {row.attempt} claimed by {worker}"
        append_event(connection, job_id, "info", "claimed", message, {"worker": worker}, row.attempt)
        return Claim(job_id=job_id, attempt=row.attempt, queue=row.queue, spec=row.resolved_spec)

    def beat(self, job_id: str, attempt: int, lease_s: float) -> str | None:
        """Renew the lease; what the user wants now ('run' | 'pause' | 'cancelled'), or None when the lease is lost."""
        renewed = (
            update(t.jobs)
            .where(*held(job_id, attempt))
            .values(lease_until=t.db_now() + lease_s)
            .returning(t.jobs.c.desired_state)
        )
        with self._write() as connection:
            return connection.execute(renewed).scalar_one_or_none()

    def finish(
        self,
        job_id: str,
        attempt: int,
        status: str,
        error: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> bool:
        """End the job as 'succeeded', 'failed' or 'cancelled': once. False when the lease is lost.

        A job whose cancel was accepted ends as cancelled even if the trainer was faster: the user was told so.
        """
        if status not in TERMINAL:
            raise ValueError(f"finish: {status!r} is not a terminal status")
        with self._write() as connection:
            job = held_job(connection, job_id, attempt)
            if job is None:
                return False
            if job.status == "cancelling" and status == "succeeded":
                status = "cancelled"
            end_job(connection, job, status, error, report)
            return True

    def requeue(
        self,
        job_id: str,
        attempt: int,
        *,
        crashed: bool,
        reason: str | None = None,
        error: Mapping[str, Any] | None = None,
        later: str | None = None,
    ) -> bool:
        """Give the job back, to be claimed again. False when the lease is lost.

        A crash counts towards ``schedule.max_restarts``, beyond which the job fails: with ``error`` if the crash has
        a name, else with code ``worker_lost``. A job that is being cancelled ends as cancelled instead, one that is
        being paused rests. ``later``: what it waits for, if another start at once would be in vain.
        """
        with self._write() as connection:
            job = held_job(connection, job_id, attempt)
            if job is None:
                return False
            reason = reason or ("crashed" if crashed else "drained")
            give_back(connection, job, crashed=crashed, reason=reason, error=error, later=later)
            return True

    def keep_waiting(self, job_id: str, phase: str, detail: str) -> bool:
        """Say what a queued job waits for; an event with the detail the first time. False when it is not queued."""
        with self._write() as connection:
            job = find_job(connection, job_id, lock=True)
            if job is None or job.status != "queued":
                return False
            if job.phase != phase:
                set_job(connection, job_id, phase=phase)
                append_event(connection, job_id, "warning", "waiting", f"{phase}: {detail}")
            return True

    def due(self, ring_after_s: float) -> list[tuple[str, str]]:
        """What the reconciler has to do: settle jobs without a worker, then (job_id, queue) of bells to ring.

        Jobs with an expired lease go back to the queue, or end when cancelled or lost too often. A bell is rung at
        once for a job that was never rung since it was queued; again after ``ring_after_s`` when an idle worker of
        its queue has evidently not heard it; and after ten times that in any case. Any number of reconcilers may
        run at the same time.
        """
        jobs, clock = t.jobs.c, t.db_now()
        orphaned = or_(
            and_(jobs.status.in_(ACTIVE), jobs.lease_until < clock),
            and_(jobs.status == "queued", jobs.desired_state == "cancelled"),
        )
        waiting = and_(jobs.status == "queued", jobs.desired_state == "run")
        # A bell of the future was rung before the clock was set back.
        unheard = or_(jobs.rung_at.is_(None), jobs.rung_at < clock - ring_after_s, jobs.rung_at > clock)
        query = select(jobs.id, jobs.queue, jobs.rung_at, clock.label("now")).where(waiting, unheard)
        with self._read() as connection:
            lost = list(connection.execute(select(jobs.id).where(orphaned)).scalars())
        for job_id in lost:
            with self._write() as connection:
                row = connection.execute(select(*JOB).where(jobs.id == job_id, orphaned).with_for_update()).mappings()
                for mapping in row:
                    job = Job.of(mapping)
                    give_back(connection, job, crashed=job.status != "queued", reason="lease expired")
        with self._read() as connection:
            bells = connection.execute(query.order_by(jobs.priority.desc(), jobs.id)).all()
        idle = idle_queues(self.list_workers())
        return [
            (bell.id, bell.queue)
            for bell in bells
            if bell.rung_at is None or bell.queue in idle or bell.rung_at < bell.now - 10 * ring_after_s
        ]

    def mark_rung(self, job_id: str) -> None:
        """Remember that the bell of a job was rung just now."""
        with self._write() as connection:
            set_job(connection, job_id, rung_at=t.db_now())
