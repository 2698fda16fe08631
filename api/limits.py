"""How fast one token may ask: a token bucket, kept by this process alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import identity
from api.problems import problem
from opd_core.runs.settings import Settings

_MOST_BUCKETS = 10_000


@dataclass
class _Bucket:
    left: float
    filled_at: float


class Buckets:
    """A bucket of ``burst`` requests per name, refilled with ``per_s`` a second."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str) -> float:
        """0.0 and one request less in the bucket, or the seconds until there is one."""
        now = self._clock()
        if name not in self._buckets and len(self._buckets) >= _MOST_BUCKETS:
            self._buckets.clear()  # revoked names would stay for ever; everyone else starts with a full bucket
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
        bucket.left = min(self._burst, bucket.left + (now - bucket.filled_at) * self._per_s)
        bucket.filled_at = now
        if bucket.left < 1.0:
            return (1.0 - bucket.left) / self._per_s
        bucket.left -= 1.0
        return 0.0


class LimitRequests:
    """Answers 429 with Retry-After when a token asks too fast. Inside ``RequireToken``."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._per_s = settings.requests_per_s
        self._buckets = Buckets(settings.requests_per_s, settings.requests_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "identity" in scope.get("state", {}):
            request = Request(scope)
            wait_s = self._buckets.take(identity(request).name)
            if wait_s:
                detail = f"this token asks faster than {self._per_s:g} requests a second (OPD_REQUESTS_PER_S)"
                request_id = getattr(request.state, "request_id", None)
                headers = {"Retry-After": str(math.ceil(wait_s))}
                refusal = problem(429, "too_many_requests", detail, request_id=request_id, headers=headers)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
