"""How far a run is: phase, progress, accuracy, warnings, scalars by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, insert, select, update

from opd_core.runs import tables as t
from opd_core.runs.plain import finite, storable
from opd_core.runs.states import Status, require
from opd_core.runs.store.base import Base
from opd_core.runs.store.transaction import held_job, set_job


class Progress(Base):
    """What a worker reports while it trains. Writes answer False once its lease is lost."""

    def set_phase(self, job_id: str, attempt: int, phase: str, status: Status | None = None) -> bool:
        """Say what the run is doing and, with ``status``, move the machine. Raises InvalidTransition.

        A job that is being cancelled keeps that status, and one that is being paused does not run again: the
        request may arrive at any moment.
        """
        with self._write() as connection:
            job = held_job(connection, job_id, attempt)
            if job is None:
                return False
            values: dict[str, Any] = {"phase": storable(phase)[:256]}
            kept = job.status == "cancelling" or (job.status == "pausing" and status == "running")
            if status is not None and not kept:
                require(job.status, status)
                values["status"] = status
            set_job(connection, job_id, **values)
            return True

    def set_progress(self, job_id: str, attempt: int, progress: Mapping[str, Any]) -> bool:
        """Replace the progress; a non-null ``accuracy`` in it becomes ``accuracy.latest``."""
        rest = finite({key: value for key, value in progress.items() if key not in ("type", "accuracy")})
        latest = finite(progress.get("accuracy"))
        with self._write() as connection:
            job = held_job(connection, job_id, attempt)
            if job is None:
                return False
            values: dict[str, Any] = {"progress": rest}
            if latest is not None:
                values["accuracy"] = {**job.accuracy, "latest": latest}
            set_job(connection, job_id, **values)
            return True

    def set_accuracy(self, job_id: str, attempt: int, accuracy: Mapping[str, Any]) -> bool:
        """Update some of before, latest, after, teacher, gap_recovered."""
        known = finite({key: value for key, value in accuracy.items() if key != "type"})
        with self._write() as connection:
            job = held_job(connection, job_id, attempt)
            if job is None:
                return False
            set_job(connection, job_id, accuracy={**job.accuracy, **known})
            return True

    def add_warning(self, job_id: str, attempt: int, message: str) -> bool:
        """Add a sentence to the job's warnings, once."""
        with self._write() as connection:
            job = held_job(connection, job_id, attempt)
            if job is None:
                return False
            if message not in job.warnings:
                set_job(connection, job_id, warnings=[*job.warnings, message])
            return True

    def add_metrics(self, job_id: str, attempt: int, step: int, values: Mapping[str, float]) -> bool:
        """Store scalars of a step (non-finite ones as null).

        One row per step: the same attempt adds to it, a higher one replaces it.
        """
        key = and_(t.metrics.c.job_id == job_id, t.metrics.c.step == step)
        plain = finite(dict(values))
        with self._write() as connection:
            if held_job(connection, job_id, attempt) is None:
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
