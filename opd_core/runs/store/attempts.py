"""Attempts: how often a job was started, and how each start ended."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, not_, or_, select, update

from opd_core.runs import tables as t
from opd_core.runs.rows import Attempt
from opd_core.runs.store.base import Base

# How the reason of an attempt begins that ended as its user or its operator wanted.
_PEACE = ("succeeded", "cancelled", "drained", "paused", "waits")


class Attempts(Base):
    """``claim`` makes the row; the supervisor adds to it."""

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

    def list_recent_attempts(self, limit: int = 20, *, failed: bool = False) -> list[Attempt]:
        """Of all jobs, the newest start first. ``failed``: only those that ended otherwise than in peace."""
        table = t.attempts.c
        query = select(t.attempts).order_by(table.started_at.desc(), table.job_id.desc()).limit(limit)
        if failed:
            peace = or_(*(table.reason.startswith(end) for end in _PEACE))
            query = query.where(not_(peace))  # without a reason, as while it runs, neither is true
        with self._read() as connection:
            return [Attempt.of(row) for row in connection.execute(query).mappings()]


def _attempt(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return t.attempts.c.job_id == job_id, t.attempts.c.attempt == attempt
