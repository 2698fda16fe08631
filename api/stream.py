"""A job's live updates as server-sent events.

Redis Streams carry the updates and give them ids, so a viewer that reconnects goes on where it was. The database
decides when a job has ended, and stands in (status and progress, polled) while the broker is away.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import redis
from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api import views
from api.services import Services
from opd_core.runs.live import AsyncLiveReader, LiveEntry
from opd_core.runs.rows import Job
from opd_core.runs.states import TERMINAL

EVENT_ID = re.compile(r"\d{1,19}(-\d{1,19})?")
_POLL_S = 1.0
_RETRY_S = 2.0
_DRAIN_S = 0.02
_BATCH = 200
_START = "0-0"
_TRIMMED = "live updates since then were trimmed; read the recorded ones"
_ALWAYS = frozenset({"end", "resync"})


@dataclass
class Viewer:
    """One open stream: where it is, what it wants, what it was told last."""

    services: Services
    job_id: str
    after: str | None
    types: frozenset[str] | None
    cursor: str = _START
    status: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    away_until: float = 0.0

    async def events(self, job: Job) -> AsyncIterator[ServerSentEvent]:
        """Present state (or what was missed since ``after``), then updates, then ``end``."""
        url = self.services.settings.redis_url
        reader = AsyncLiveReader(url) if url else None
        try:
            async for event in self._events(job, reader):
                if self.types is None or event.event in self.types or event.event in _ALWAYS:
                    yield event
        finally:
            if reader is not None:
                await reader.close()

    async def _events(self, job: Job, reader: AsyncLiveReader | None) -> AsyncIterator[ServerSentEvent]:
        # Position first, state second: an update in between is sent twice rather than never.
        gap = await self._position(reader)
        if gap:
            yield self._event("resync", {"reason": gap})
        if self.after is None or gap:
            job = await self._job()
            for event in self._changes(job):
                yield event
        checked = time.monotonic()
        while not self.services.stopping.is_set():
            over = job.status in TERMINAL
            entries = await self._read(reader, _DRAIN_S if over else _POLL_S, patient=not over)
            if len(entries) == _BATCH and await self._fell_behind(reader):
                yield self._event("resync", {"reason": _TRIMMED})
            for entry in entries:
                self.cursor = entry.id
                if entry.type == "end":
                    continue  # a worker's word; the database has the last one
                if entry.type == "status":
                    self.status = _status_in(entry.data)
                yield ServerSentEvent(raw_data=entry.data, event=entry.type, id=entry.id)
            told = any(entry.type == "end" for entry in entries)
            if told or over or time.monotonic() - checked >= _POLL_S:
                checked = time.monotonic()
                job = await self._job()
                # A job that was over before this read, and left nothing to read, is over for its viewers too.
                if over and not entries:
                    for event in self._changes(job):
                        yield event
                    yield self._event("end", {"status": job.status, "error": job.error})
                    return
                if not entries:
                    for event in self._changes(job, progress=reader is None or self.away_until > checked):
                        yield event

    async def _read(self, reader: AsyncLiveReader | None, wait_s: float, *, patient: bool) -> list[LiveEntry]:
        """Entries behind the cursor, waiting for them; [] while the broker is away (asked again now and then)."""
        if reader is None or (patient and time.monotonic() < self.away_until):
            await anyio.sleep(wait_s)
            return []
        try:
            return await reader.read(self.job_id, self.cursor, wait_s, _BATCH)
        except (redis.RedisError, OSError):
            self.away_until = time.monotonic() + _RETRY_S
            return []

    async def _fell_behind(self, reader: AsyncLiveReader | None) -> bool:
        """Whether updates behind the cursor are gone: a slow viewer holds nothing here, the stream moves on."""
        if reader is None:
            return False
        try:
            held = await reader.range(self.job_id)
        except (redis.RedisError, OSError):
            return False
        return held is not None and held.trimmed and _key(self.cursor) < _key(held.first)

    async def _position(self, reader: AsyncLiveReader | None) -> str | None:
        """Set the cursor; why the viewer must read the state anew, or None."""
        self.cursor = self.after or _START
        if reader is None:
            return "there is no broker; status and progress only" if self.after else None
        try:
            held = await reader.range(self.job_id)
        except (redis.RedisError, OSError):
            return "the broker is away; status and progress only" if self.after else None
        if self.after is None:
            self.cursor = held.last if held else _START
            return None
        if held is None:
            return "the live history of this job is gone" if _key(self.after) > _key(_START) else None
        if held.trimmed and _key(self.after) < _key(held.first):
            return _TRIMMED
        if _key(self.after) > _key(held.last):
            self.cursor = held.last
            return "the live history of this job was started anew"
        return None

    async def _job(self) -> Job:
        job = await run_in_threadpool(self.services.store.get_job, self.job_id)
        if job is None:
            raise LookupError(f"job {self.job_id} vanished while it was watched")
        return job

    def _changes(self, job: Job, *, progress: bool = True) -> list[ServerSentEvent]:
        """What the database says that the viewer has not heard."""
        found = []
        if (status := _status(job)) != self.status:
            self.status = status
            found.append(self._event("status", status))
        if progress and job.progress and job.progress != self.progress:
            self.progress = job.progress
            latest = {"accuracy": job.accuracy.get("latest")}
            found.append(self._event("progress", views.job(job).progress.model_dump() | latest))
        return found

    def _event(self, kind: str, data: dict[str, Any]) -> ServerSentEvent:
        return ServerSentEvent(raw_data=json.dumps(data), event=kind, id=self.cursor)


def _status(job: Job) -> dict[str, Any]:
    return {
        "status": job.status,
        "phase": job.phase,
        "attempt": job.attempt,
    }


def _status_in(data: str) -> dict[str, Any]:
    told = json.loads(data)
    return {key: told.get(key) for key in ("status", "phase", "attempt")}


def _key(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
