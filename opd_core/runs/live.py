"""Live telemetry over Redis Streams, capped: what a viewer may miss, never what is recorded.

Per job four streams: ``live`` (type, JSON data), ``tokens`` (one encoded payload of token records per step), ``steps``
(the index of ``tokens`` without the payloads) and ``profiles`` (one encoded profile per step). Entry ids of the last
three are ``{attempt}-{step}``, so a step is found without reading its neighbours.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import redis
import redis.asyncio
import structlog
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from opd_core.runs import parts, profiles, records
from opd_core.runs.plain import finite

LIVE_ENTRIES = 5000
TOKEN_STEPS = 64
TOKEN_BYTES = 64 * 1024 * 1024
"""Of a job's token records: with large steps fewer of them are kept, so that no job fills the broker."""
KEEP_AFTER_LAST_S = 24 * 3600
"""A job's streams are gone so long after its last live update, whoever ended it."""
_PAUSE_S = 2.0
_TIMEOUT_S = 2.0

# redis-py's name for what an entry may hold
Fields = dict[Any, Any]

log = structlog.get_logger()


def live_key(job_id: str) -> str:
    """Stream of live updates of a job."""
    return f"opd:job:{job_id}:live"


def tokens_key(job_id: str) -> str:
    """Stream of the last steps' token records."""
    return f"opd:job:{job_id}:tokens"


def steps_key(job_id: str) -> str:
    """Stream of (step, attempt, sequences) beside ``tokens_key``."""
    return f"opd:job:{job_id}:steps"


def profiles_key(job_id: str) -> str:
    """Stream of the last steps' profiles."""
    return f"opd:job:{job_id}:profiles"


class LiveWriter:
    """Publishes live updates. A broker that is away costs updates, never time or an error; ``dropped`` counts them.

    ``redis_url`` None: no broker, everything is dropped in silence. Thread-safe.
    """

    def __init__(self, redis_url: str | None) -> None:
        self._redis = redis.Redis.from_url(redis_url, **_timeouts()) if redis_url else None
        self._lock = threading.Lock()
        self._retry_at = 0.0
        self._away = False
        self.dropped = 0

    def publish(self, job_id: str, type: str, data: Mapping[str, Any]) -> None:
        """One live update: status, progress, metrics, records, checkpoint, event, accuracy or end."""
        fields: Fields = {"type": type, "data": json.dumps(finite(dict(data)))}
        self._run(job_id, lambda pipe: pipe.xadd(live_key(job_id), fields, maxlen=LIVE_ENTRIES))

    def publish_records(
        self, job_id: str, step: int, attempt: int, payload: bytes, profile: bytes | None = None
    ) -> None:
        """A step's token records and profile as encoded, and the live update ``records`` that announces them.

        A payload above TOKEN_BYTES is not streamed: it is at rest soon.
        """
        if len(payload) > TOKEN_BYTES:
            self.dropped += 1
            return
        steps = min(TOKEN_STEPS, TOKEN_BYTES // max(1, len(payload)))
        sequences = records.count(payload)
        entry = f"{attempt}-{step}"
        about: Fields = {"step": step, "attempt": attempt}
        notice: Fields = {"type": "records", "data": json.dumps({"step": step, "sequences": sequences})}

        def add(pipe: redis.client.Pipeline) -> None:
            pipe.xadd(tokens_key(job_id), {**about, "payload": payload}, entry, steps, False)
            pipe.xadd(steps_key(job_id), {**about, "sequences": sequences}, entry, steps, False)
            if profile is not None:
                pipe.xadd(profiles_key(job_id), {**about, "payload": profile}, entry, TOKEN_STEPS, False)
            pipe.xadd(live_key(job_id), notice, maxlen=LIVE_ENTRIES)

        self._run(job_id, add)

    def close(self) -> None:
        """Drop the connections."""
        if self._redis is not None:
            self._redis.close()

    def _run(self, job_id: str, commands: Callable[[redis.client.Pipeline], object]) -> None:
        with self._lock:
            if self._redis is None or time.monotonic() < self._retry_at:
                self.dropped += 1
                return
            try:
                with self._redis.pipeline(transaction=False) as pipe:
                    commands(pipe)
                    for key in _keys(job_id):
                        pipe.expire(key, KEEP_AFTER_LAST_S)
                    if self._away:
                        missed = {"message": "live updates were lost while the broker was away", "lost": self.dropped}
                        notice: Fields = {"type": "lost", "data": json.dumps(missed)}
                        pipe.xadd(live_key(job_id), notice, maxlen=LIVE_ENTRIES)
                    pipe.execute()
            except redis.ResponseError as error:
                # The broker is there and refuses (a step published twice, out of memory): only this update is lost.
                self.dropped += 1
                log.warning("live_update_refused", job_id=job_id, error=str(error))
            except (redis.RedisError, OSError) as error:
                self.dropped += 1
                self._retry_at = time.monotonic() + _PAUSE_S
                if not self._away:
                    log.warning("broker_away", job_id=job_id, error=type(error).__name__)
                self._away = True
            else:
                if self._away:
                    log.info("broker_back", job_id=job_id, lost=self.dropped)
                self._away = False


@dataclass(frozen=True)
class LiveEntry:
    """One live update with its stream id; ``data`` is JSON text."""

    id: str
    type: str
    data: str


@dataclass(frozen=True)
class StreamRange:
    """First and last entry id that a live stream holds, and whether older ones were trimmed."""

    first: str
    last: str
    trimmed: bool


class LiveReader:
    """Blocking reads of recent token records. Raises redis.RedisError when the broker is away."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, **_timeouts())

    def steps(self, job_id: str) -> dict[int, int]:
        """Step -> number of sequences, for the steps whose records are still in the stream."""
        entries = cast(list[Any], self._redis.xrange(steps_key(job_id)))
        # Entries come in order of (attempt, step): the highest attempt of a step is the last one.
        return {int(fields[b"step"]): int(fields[b"sequences"]) for _, fields in entries}

    def read_step(self, job_id: str, step: int, attempt: int) -> pa.Table | None:
        """Token records of a step as the highest attempt up to ``attempt`` wrote them; None when not there."""
        for number in range(attempt, 0, -1):
            entry = f"{number}-{step}"
            found = cast(list[Any], self._redis.xrange(tokens_key(job_id), entry, entry))
            if found:
                return records.decode_table(found[0][1][b"payload"])
        return None

    def profiles(self, job_id: str) -> pa.Table:
        """The profiles that are still in the stream, as the newest attempt at each step wrote them."""
        entries = cast(list[Any], self._redis.xrange(profiles_key(job_id)))
        found = [profiles.decode(fields[b"payload"]) for _, fields in entries]
        return parts.newest(pa.concat_tables([profiles.SCHEMA.empty_table(), *found]))

    def forget(self, job_id: str) -> None:
        """Remove the streams of a job."""
        self._redis.delete(*_keys(job_id))

    def ping(self) -> bool:
        """Whether the broker answers."""
        return bool(self._redis.ping())

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()


class AsyncLiveReader:
    """Waits for live updates. Raises redis.RedisError when the broker is away. One per viewer."""

    def __init__(self, redis_url: str) -> None:
        # Longer than any ``block_s``: redis-py would take a quiet stream for a dead broker.
        options = {**_timeouts(), "socket_timeout": 10.0, "retry": AsyncRetry(NoBackoff(), 1)}
        self._redis = redis.asyncio.Redis.from_url(redis_url, **options)

    async def range(self, job_id: str) -> StreamRange | None:
        """What the stream holds; None when there is no stream."""
        key = live_key(job_id)
        try:
            info = cast(dict[str, Any], await cast(Awaitable[Any], self._redis.xinfo_stream(key)))
        except redis.ResponseError:
            return None
        if not info["length"]:
            return None
        trimmed = info["entries-added"] > info["length"]
        return StreamRange(info["first-entry"][0].decode(), info["last-generated-id"].decode(), trimmed)

    async def read(self, job_id: str, after: str, block_s: float, count: int = 200) -> list[LiveEntry]:
        """Entries behind the id ``after``, waiting up to ``block_s`` for the first; [] when none came."""
        reply = await cast(
            Awaitable[Any],
            self._redis.xread({live_key(job_id): after}, count=count, block=max(1, int(block_s * 1000))),
        )
        entries = reply[0][1] if reply else []
        return [
            LiveEntry(entry.decode(), fields[b"type"].decode(), fields[b"data"].decode()) for entry, fields in entries
        ]

    async def close(self) -> None:
        """Drop the connection."""
        await self._redis.aclose()


def _timeouts() -> dict[str, Any]:
    # One more try at once heals a connection that a restarted broker has closed; redis-py's default waits for seconds.
    retry = Retry(NoBackoff(), 1)
    return {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S, "retry": retry}


def _keys(job_id: str) -> tuple[str, ...]:
    return live_key(job_id), tokens_key(job_id), steps_key(job_id), profiles_key(job_id)
