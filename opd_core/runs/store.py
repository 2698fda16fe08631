"""The run records: every read and write of jobs, attempts, events, metrics, checkpoints and workers.

The rules that make a job survive its workers:

- a claim is one compare-and-set that takes a lease and raises ``attempt``, the fencing token;
- every later write of a worker carries its ``attempt`` and does nothing (False or None) once another attempt, the
  reconciler or a terminal status has taken the job away from it;
- crashes are counted apart from attempts: a drained or resumed job may be claimed any number of times;
- a terminal status is reached once.

Status changes write their own events (created, claimed, cancel_requested, requeued, lost, finished).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    case,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from opd_core.runs import tables as t
from opd_core.runs.database import writer
from opd_core.runs.ids import new_id
from opd_core.runs.plain import finite, storable
from opd_core.runs.rows import Attempt, Checkpoint, Claim, Event, Job, Worker
from opd_core.runs.states import ACTIVE, TERMINAL, InvalidTransition, Status, require
from opd_core.spec import JobSpec

MAX_CRASHES = 3
"""A job whose worker was lost more often than this fails with code ``worker_lost``."""
IDEMPOTENCY_S = 24 * 3600.0
WORKER_ALIVE_S = 60.0

Level = Literal["info", "warning", "error"]
Idempotency = tuple[str, str, str]
"""(principal, key, sha256 of the request)"""


class JobNotFound(LookupError):
    """No job of that id."""


class IdempotencyMismatch(ValueError):
    """The key was used before, for another request."""


class RunStore:
    """Thread-safe; holds nothing but the engine. Make the engine after a fork."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = writer(engine)

    def _read(self) -> AbstractContextManager[Connection]:
        return self.engine.connect()

    def _write(self) -> AbstractContextManager[Connection]:
        return self._writer.begin()

    def now(self) -> float:
        """The database's clock, UTC epoch seconds."""
        with self._read() as connection:
            return float(connection.execute(select(t.db_now())).scalar_one())

    # --- jobs ---------------------------------------------------------------------------------------------------

    def create_job(
        self, spec: JobSpec, resolved: JobSpec, warnings: Sequence[str] = (), *, idempotency: Idempotency | None = None
    ) -> Job:
        """Write a queued job and commit; ring the bell afterwards.

        With a known idempotency key it returns the job that the key made, or raises IdempotencyMismatch.
        """
        job_id = new_id("job")
        try:
            with self._write() as connection:
                if idempotency:
                    old = t.idempotency.c.created_at < t.db_now() - IDEMPOTENCY_S
                    connection.execute(delete(t.idempotency).where(old))
                    if known := _replay(connection, idempotency):
                        return known
                connection.execute(
                    insert(t.jobs).values(
                        id=job_id,
                        name=spec.name,
                        recipe=spec.recipe,
                        queue=spec.resources.queue,
                        status="queued",
                        phase="waiting for a worker",
                        desired_state="run",
                        attempt=0,
                        crashes=0,
                        created_at=t.db_now(),
                        event_seq=0,
                        spec=spec.model_dump(mode="json"),
                        resolved_spec=resolved.model_dump(mode="json"),
                        progress={},
                        accuracy={},
                        warnings=list(warnings),
                        error=null(),
                        report=null(),
                    )
                )
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
                _add_event(connection, job_id, "info", "created", f"queued on {spec.resources.queue}")
                return _job(connection, job_id)
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
            return _find(connection, job_id)

    def list_jobs(
        self,
        limit: int = 20,
        after: str | None = None,
        status: str | None = None,
        name_contains: str | None = None,
    ) -> tuple[list[Job], bool]:
        """Newest first, starting behind the id ``after``; and whether there are more."""
        query = select(t.jobs).order_by(t.jobs.c.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(t.jobs.c.id < after)
        if status is not None:
            query = query.where(t.jobs.c.status == status)
        if name_contains:
            query = query.where(t.jobs.c.name.icontains(name_contains, autoescape=True))
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

    def request_cancel(self, job_id: str) -> Job:
        """Record the wish to cancel. Nobody works on a queued or paused job: it is cancelled at once.

        Asking twice changes nothing. Raises JobNotFound, or InvalidTransition for a succeeded or failed job.
        """
        with self._write() as connection:
            job = _job(connection, job_id, lock=True)
            if job.status in ("cancelled", "cancelling"):
                return job
            if job.status in TERMINAL:
                raise InvalidTransition(job.status, "cancelled")
            if job.status in ACTIVE:
                _set(connection, job_id, status="cancelling", desired_state="cancelled", phase="stopping the trainer")
                _add_event(connection, job_id, "info", "cancel_requested", "cancel requested")
            else:
                _set(connection, job_id, desired_state="cancelled")
                _end(connection, job, "cancelled")
            return _job(connection, job_id)

    # --- leases -------------------------------------------------------------------------------------------------

    def claim(self, job_id: str, worker: str, lease_s: float) -> Claim | None:
        """Take a queued job, or one whose lease has expired. None when it is not to be had."""
        jobs = t.jobs.c
        expired = and_(
            jobs.status.in_(ACTIVE - {"cancelling"}),
            jobs.lease_until < t.db_now(),
            jobs.crashes < MAX_CRASHES,
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
        with self._write() as connection:
            row = connection.execute(taken).one_or_none()
            if row is None:
                return None
            _close_attempts(connection, job_id, "lease expired")
            connection.execute(
                insert(t.attempts).values(job_id=job_id, attempt=row.attempt, worker=worker, started_at=t.db_now())
            )
            message = f"attempt {row.attempt} claimed by {worker}"
            _add_event(connection, job_id, "info", "claimed", message, {"worker": worker}, row.attempt)
            return Claim(job_id=job_id, attempt=row.attempt, queue=row.queue, spec=row.resolved_spec)

    def beat(self, job_id: str, attempt: int, lease_s: float) -> str | None:
        """Renew the lease; what the user wants now ('run' | 'cancelled'), or None when the lease is lost."""
        renewed = (
            update(t.jobs)
            .where(*_held(job_id, attempt))
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
            job = _held_job(connection, job_id, attempt)
            if job is None:
                return False
            if job.status == "cancelling" and status == "succeeded":
                status = "cancelled"
            _end(connection, job, status, error, report)
            return True

    def requeue(self, job_id: str, attempt: int, *, crashed: bool) -> bool:
        """Give the job back, to be claimed again. False when the lease is lost.

        A crash counts towards MAX_CRASHES, beyond which the job fails with code ``worker_lost``. A job that is
        being cancelled ends as cancelled instead.
        """
        with self._write() as connection:
            job = _held_job(connection, job_id, attempt)
            if job is None:
                return False
            _give_back(connection, job, crashed=crashed, reason="crashed" if crashed else "drained")
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
        unheard = or_(jobs.rung_at.is_(None), jobs.rung_at < clock - ring_after_s)
        query = select(jobs.id, jobs.queue, jobs.rung_at, clock.label("now")).where(waiting, unheard)
        with self._read() as connection:
            lost = list(connection.execute(select(jobs.id).where(orphaned)).scalars())
        for job_id in lost:
            with self._write() as connection:
                row = connection.execute(select(t.jobs).where(jobs.id == job_id, orphaned).with_for_update()).mappings()
                for mapping in row:
                    job = Job.of(mapping)
                    _give_back(connection, job, crashed=job.status != "queued", reason="lease expired")
        with self._read() as connection:
            bells = connection.execute(query.order_by(jobs.id)).all()
        idle = {queue for worker in self.list_workers() if _is_idle(worker) for queue in worker.queues}
        return [
            (bell.id, bell.queue)
            for bell in bells
            if bell.rung_at is None or bell.queue in idle or bell.rung_at < bell.now - 10 * ring_after_s
        ]

    def mark_rung(self, job_id: str) -> None:
        """Remember that the bell of a job was rung just now."""
        with self._write() as connection:
            _set(connection, job_id, rung_at=t.db_now())

    # --- what a worker reports ----------------------------------------------------------------------------------

    def set_phase(self, job_id: str, attempt: int, phase: str, status: Status | None = None) -> bool:
        """Say what the run is doing and, with ``status``, move the machine. Raises InvalidTransition.

        A job that is being cancelled keeps that status: the request may arrive at any moment.
        """
        with self._write() as connection:
            job = _held_job(connection, job_id, attempt)
            if job is None:
                return False
            values: dict[str, Any] = {"phase": storable(phase)[:256]}
            if status is not None and job.status != "cancelling":
                require(job.status, status)
                values["status"] = status
            _set(connection, job_id, **values)
            return True

    def set_progress(self, job_id: str, attempt: int, progress: Mapping[str, Any]) -> bool:
        """Replace the progress; a non-null ``accuracy`` in it becomes ``accuracy.latest``."""
        rest = finite({key: value for key, value in progress.items() if key not in ("type", "accuracy")})
        latest = finite(progress.get("accuracy"))
        with self._write() as connection:
            job = _held_job(connection, job_id, attempt)
            if job is None:
                return False
            values: dict[str, Any] = {"progress": rest}
            if latest is not None:
                values["accuracy"] = {**job.accuracy, "latest": latest}
            _set(connection, job_id, **values)
            return True

    def set_accuracy(self, job_id: str, attempt: int, accuracy: Mapping[str, Any]) -> bool:
        """Update some of before, latest, after, teacher, gap_recovered."""
        known = finite({key: value for key, value in accuracy.items() if key != "type"})
        with self._write() as connection:
            job = _held_job(connection, job_id, attempt)
            if job is None:
                return False
            _set(connection, job_id, accuracy={**job.accuracy, **known})
            return True

    def add_warning(self, job_id: str, attempt: int, message: str) -> bool:
        """Add a sentence to the job's warnings, once."""
        with self._write() as connection:
            job = _held_job(connection, job_id, attempt)
            if job is None:
                return False
            if message not in job.warnings:
                _set(connection, job_id, warnings=[*job.warnings, message])
            return True

    def add_metrics(self, job_id: str, attempt: int, step: int, values: Mapping[str, float]) -> bool:
        """Store scalars of a step (non-finite ones as null).

        One row per step: the same attempt adds to it, a higher one replaces it.
        """
        key = and_(t.metrics.c.job_id == job_id, t.metrics.c.step == step)
        plain = finite(dict(values))
        with self._write() as connection:
            if _held_job(connection, job_id, attempt) is None:
                return False
            old = connection.execute(select(t.metrics).where(key)).mappings().one_or_none()
            if old is None:
                row = {"job_id": job_id, "step": step, "attempt": attempt, "values": plain}
                connection.execute(insert(t.metrics).values(row))
            else:
                merged = {**old["values"], **plain} if old["attempt"] == attempt else plain
                connection.execute(update(t.metrics).where(key).values(attempt=attempt, values=merged))
            return True

    def get_metrics(self, job_id: str, from_step: int = 0) -> list[tuple[int, dict[str, float | None]]]:
        """(step, values) in order, from a step on."""
        query = (
            select(t.metrics.c.step, t.metrics.c["values"])
            .where(t.metrics.c.job_id == job_id, t.metrics.c.step >= from_step)
            .order_by(t.metrics.c.step)
        )
        with self._read() as connection:
            return [(step, values) for step, values in connection.execute(query)]

    def add_event(
        self,
        job_id: str,
        level: Level,
        type: str,
        message: str,
        data: Mapping[str, Any] | None = None,
        attempt: int | None = None,
    ) -> Event | None:
        """Append to the audit log. With ``attempt``: None when a newer attempt holds the job.

        Raises JobNotFound.
        """
        with self._write() as connection:
            if attempt is not None and _job(connection, job_id, lock=True).attempt != attempt:
                return None
            return _add_event(connection, job_id, level, type, message, data, attempt)

    def list_events(self, job_id: str, after: int = 0, limit: int = 100) -> tuple[list[Event], bool]:
        """Events with ``seq`` above ``after``, in order; and whether there are more."""
        query = (
            select(t.events)
            .where(t.events.c.job_id == job_id, t.events.c.seq > after)
            .order_by(t.events.c.seq)
            .limit(limit + 1)
        )
        with self._read() as connection:
            found = [Event.of(row) for row in connection.execute(query).mappings()]
        return found[:limit], len(found) > limit

    def add_checkpoint(
        self,
        job_id: str,
        attempt: int,
        *,
        name: str,
        step: int,
        kind: Literal["training", "export"],
        size_bytes: int,
        files: Sequence[Mapping[str, Any]],
    ) -> Checkpoint | None:
        """Index a published directory and make it the latest. A name that is published again replaces its row."""
        table = t.checkpoints
        checkpoint_id = new_id("ckpt")
        listed = [{"id": new_id("file"), **{key: file[key] for key in ("name", "size", "sha256")}} for file in files]
        with self._write() as connection:
            if _held_job(connection, job_id, attempt) is None:
                return None
            connection.execute(delete(table).where(table.c.job_id == job_id, table.c.name == name))
            connection.execute(
                insert(table).values(
                    id=checkpoint_id,
                    job_id=job_id,
                    name=name,
                    step=step,
                    attempt=attempt,
                    kind=kind,
                    size_bytes=size_bytes,
                    created_at=t.db_now(),
                    files=listed,
                )
            )
            _set(connection, job_id, latest_checkpoint=checkpoint_id)
            row = connection.execute(select(table).where(table.c.id == checkpoint_id)).mappings().one()
            return Checkpoint.of(row)

    def prune_checkpoint(self, job_id: str, attempt: int, name: str) -> bool:
        """Forget a checkpoint whose files were removed."""
        table = t.checkpoints
        newest = (
            select(table.c.id).where(table.c.job_id == job_id).order_by(table.c.id.desc()).limit(1).scalar_subquery()
        )
        with self._write() as connection:
            if _held_job(connection, job_id, attempt) is None:
                return False
            connection.execute(delete(table).where(table.c.job_id == job_id, table.c.name == name))
            _set(connection, job_id, latest_checkpoint=newest)
            return True

    def list_checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Oldest first."""
        table = t.checkpoints
        query = select(table).where(table.c.job_id == job_id).order_by(table.c.id)
        with self._read() as connection:
            return [Checkpoint.of(row) for row in connection.execute(query).mappings()]

    def start_attempt(self, job_id: str, attempt: int, *, host: str, pid: int) -> None:
        """Note where the trainer of an attempt runs (``claim`` has made the row)."""
        with self._write() as connection:
            connection.execute(update(t.attempts).where(*_attempt(job_id, attempt)).values(host=host, pid=pid))

    def finish_attempt(
        self,
        job_id: str,
        attempt: int,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Note how the trainer of an attempt ended. Kept even when the lease is lost: it is that attempt's story."""
        ended = t.attempts.c
        values = {
            "exit_code": exit_code,
            "signal": signal,
            "reason": func.coalesce(reason and reason[:1024], ended.reason),
            "finished_at": func.coalesce(ended.finished_at, t.db_now()),
        }
        with self._write() as connection:
            connection.execute(update(t.attempts).where(*_attempt(job_id, attempt)).values(values))

    def list_attempts(self, job_id: str) -> list[Attempt]:
        """First to last."""
        query = select(t.attempts).where(t.attempts.c.job_id == job_id).order_by(t.attempts.c.attempt)
        with self._read() as connection:
            return [Attempt.of(row) for row in connection.execute(query).mappings()]

    # --- workers ------------------------------------------------------------------------------------------------

    def heartbeat_worker(
        self,
        name: str,
        host: str,
        queues: Sequence[str],
        pid: int,
        job_id: str | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        """A worker's sign of life; ``job_id`` None = idle. Every few seconds, also while idle."""
        seen = {
            "host": host,
            "queues": list(queues),
            "pid": pid,
            "job_id": job_id,
            "labels": dict(labels or {}),
            "seen_at": t.db_now(),
        }
        with self._write() as connection:
            known = connection.execute(update(t.workers).where(t.workers.c.name == name).values(seen))
            if not known.rowcount:
                connection.execute(insert(t.workers).values(name=name, started_at=t.db_now(), **seen))

    def remove_worker(self, name: str) -> None:
        """A worker says goodbye."""
        with self._write() as connection:
            connection.execute(delete(t.workers).where(t.workers.c.name == name))

    def list_workers(self) -> list[Worker]:
        """All known workers by name; ``age_s`` tells who is alive."""
        query = select(t.workers, (t.db_now() - t.workers.c.seen_at).label("age_s")).order_by(t.workers.c.name)
        with self._read() as connection:
            return [Worker.of(row) for row in connection.execute(query).mappings()]


def _is_idle(worker: Worker) -> bool:
    return worker.job_id is None and worker.age_s < WORKER_ALIVE_S


# --- pieces of a transaction ------------------------------------------------------------------------------------


def _held(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    jobs = t.jobs.c
    return jobs.id == job_id, jobs.attempt == attempt, jobs.status.in_(ACTIVE)


def _attempt(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return t.attempts.c.job_id == job_id, t.attempts.c.attempt == attempt


def _held_job(connection: Connection, job_id: str, attempt: int) -> Job | None:
    """The job, locked, if this attempt still holds it."""
    query = select(t.jobs).where(*_held(job_id, attempt)).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Job.of(row)


def _find(connection: Connection, job_id: str, *, lock: bool = False) -> Job | None:
    query = select(t.jobs).where(t.jobs.c.id == job_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else Job.of(row)


def _job(connection: Connection, job_id: str, *, lock: bool = False) -> Job:
    job = _find(connection, job_id, lock=lock)
    if job is None:
        raise JobNotFound(job_id)
    return job


def _set(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(t.jobs).where(t.jobs.c.id == job_id).values(values))


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
    return _job(connection, row.job_id)


def _add_event(
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


def _close_attempts(connection: Connection, job_id: str, reason: str) -> None:
    table = t.attempts
    connection.execute(
        update(table)
        .where(table.c.job_id == job_id, table.c.finished_at.is_(None))
        .values(finished_at=t.db_now(), reason=func.coalesce(table.c.reason, reason))
    )


def _end(
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
    _set(
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
    _close_attempts(connection, job.id, status)
    message = status if failure is None else f"{status}: {failure['message']}"
    level: Level = "error" if status == "failed" else "info"
    _add_event(connection, job.id, level, "finished", message, {"status": status}, job.attempt or None)


def _give_back(connection: Connection, job: Job, *, crashed: bool, reason: str) -> None:
    """A job without a worker: back to the queue, or to its end when cancelled or lost too often."""
    if job.desired_state == "cancelled":
        _end(connection, job, "cancelled")
        return
    crashes = job.crashes + crashed
    if crashes > MAX_CRASHES:
        message = f"the worker was lost {crashes} times; the last time: {reason}"
        _end(connection, job, "failed", {"code": "worker_lost", "message": message, "retryable": True})
        return
    _set(
        connection,
        job.id,
        status="queued",
        phase="waiting for a worker",
        crashes=crashes,
        worker=None,
        lease_until=None,
        rung_at=None,
    )
    _close_attempts(connection, job.id, reason)
    level: Level = "warning" if crashed else "info"
    message = f"attempt {job.attempt} ended ({reason}); back in the queue"
    _add_event(connection, job.id, level, "requeued", message, {"crashes": crashes}, job.attempt)
