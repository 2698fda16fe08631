"""Workers: their signs of life, and what waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from opd_core.runs import tables as t
from opd_core.runs.rows import QueueCount, Worker
from opd_core.runs.states import ACTIVE, WAITING
from opd_core.runs.store.base import Base

WORKER_ALIVE_S = 60.0


class Workers(Base):
    """One row per worker process."""

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
        again = update(t.workers).where(t.workers.c.name == name).values(seen)
        with self._write() as connection:
            if connection.execute(again).rowcount:
                return
            try:
                with connection.begin_nested():
                    connection.execute(insert(t.workers).values(name=name, started_at=t.db_now(), **seen))
            except IntegrityError:  # another worker of this name has come in between
                connection.execute(again)

    def remove_worker(self, name: str) -> None:
        """A worker says goodbye."""
        with self._write() as connection:
            connection.execute(delete(t.workers).where(t.workers.c.name == name))

    def list_workers(self) -> list[Worker]:
        """All known workers by name; ``age_s`` tells who is alive."""
        lease_left = (t.jobs.c.lease_until - t.db_now()).label("lease_left_s")
        # Another worker may have taken the job over: a lease is that of the worker who holds it.
        held = and_(t.jobs.c.id == t.workers.c.job_id, t.jobs.c.worker == t.workers.c.name)
        query = (
            select(t.workers, (t.db_now() - t.workers.c.seen_at).label("age_s"), lease_left)
            .outerjoin(t.jobs, held)
            .order_by(t.workers.c.name)
        )
        with self._read() as connection:
            return [Worker.of(row) for row in connection.execute(query).mappings()]

    def count_by_queue(self) -> dict[str, QueueCount]:
        """Queue -> its jobs that are not over."""
        jobs = t.jobs.c
        waiting = jobs.status == "queued"
        query = (
            select(
                jobs.queue,
                _count(waiting).label("waiting"),
                _count(jobs.status.in_(ACTIVE)).label("running"),
                _count(jobs.status == "paused").label("paused"),
                (t.db_now() - func.min(case((waiting, jobs.created_at)))).label("oldest_s"),
            )
            .where(jobs.status.in_(ACTIVE | WAITING))  # what the index can find
            .group_by(jobs.queue)
        )
        with self._read() as connection:
            return {row["queue"]: QueueCount.of(row) for row in connection.execute(query).mappings()}


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def idle_queues(workers: Sequence[Worker]) -> set[str]:
    """Queues on which a living worker has nothing to do."""
    idle = [worker for worker in workers if worker.job_id is None and worker.age_s < WORKER_ALIVE_S]
    return {queue for worker in idle for queue in worker.queues}
