"""Around every request: an id, security headers, counters, and an answer when the unexpected happens."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import views
from api.problems import problem
from api.services import Services
from opd_core.runs.ids import new_id
from opd_core.runs.states import STATUSES

log = structlog.get_logger()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Meters:
    """Prometheus metrics of one application."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "opd_http_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "opd_http_request_seconds", "Time to the response's start", ["route"], registry=self.registry
        )
        streams = Gauge("opd_live_streams", "Live streams that are open", registry=self.registry)
        streams.set_function(lambda: services.streams.open)
        self.registry.register(_Fleet(services))


class _Fleet(Collector):
    """What the database knows, read when it is asked for."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterable[GaugeMetricFamily]:
        # Registering asks for names; without this it would collect, and so open the database.
        return list(_fleet())

    def collect(self) -> Iterable[GaugeMetricFamily]:
        jobs, waiting, oldest, workers = families = _fleet()
        store = self._services.store
        counts = store.count_by_status()
        for status in STATUSES:
            jobs.add_metric([status], counts.get(status, 0))
        for queue in views.queues(store.count_by_queue(), store.list_workers()):
            waiting.add_metric([queue.name], queue.waiting)
            oldest.add_metric([queue.name], queue.oldest_s or 0.0)
            workers.add_metric([queue.name], queue.workers)
        return families


def _fleet() -> tuple[GaugeMetricFamily, ...]:
    return (
        GaugeMetricFamily("opd_jobs", "Jobs by status", labels=["status"]),
        GaugeMetricFamily("opd_queue_waiting", "Jobs that wait, by queue", labels=["queue"]),
        GaugeMetricFamily("opd_queue_oldest_wait_seconds", "Age of the job that waits longest", labels=["queue"]),
        GaugeMetricFamily("opd_workers", "Workers alive, by queue", labels=["queue"]),
    )


class Observe:
    """The outermost layer. Takes an X-Request-ID of harmless characters, else makes one, and sends it back."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                # Answers are data: should a browser take one for a page, it may load and run nothing.
                headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
                headers["X-Frame-Options"] = "DENY"
                # Jobs and tokens are nobody else's: keep them out of shared and disk caches.
                headers.setdefault("Cache-Control", "no-store")
                route = getattr(scope.get("route"), "path", "unmatched")
                self._meters.requests.labels(scope["method"], route, str(status)).inc()
                self._meters.seconds.labels(route).observe(time.perf_counter() - started)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, observed_send)
            except Exception:
                log.exception("request_failed", method=scope["method"], path=scope["path"])
                if status:
                    raise  # the answer has begun; only cutting the connection tells the client
                detail = f"the service failed unexpectedly; its log has the reason under {request_id}"
                answer = problem(500, "internal", detail, request_id=request_id)
                await answer(scope, receive, observed_send)
