"""The audit log of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from opd_core.runs import tables as t
from opd_core.runs.rows import Event
from opd_core.runs.store.base import Base
from opd_core.runs.store.transaction import Level, append_event, the_job


class Events(Base):
    """Appended and read in order, never changed."""

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
            if attempt is not None and the_job(connection, job_id, lock=True).attempt != attempt:
                return None
            return append_event(connection, job_id, level, type, message, data, attempt)

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

    def events_of(self, job_id: str, types: Sequence[str]) -> list[Event]:
        """All events of these types, in order."""
        wanted = t.events.c.type.in_(types)
        query = select(t.events).where(t.events.c.job_id == job_id, wanted).order_by(t.events.c.seq)
        with self._read() as connection:
            return [Event.of(row) for row in connection.execute(query).mappings()]
