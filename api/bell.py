"""Rings the doorbell: one Celery message with an id. A broker that is away is no reason to refuse a job."""

from __future__ import annotations

from typing import Any

import structlog

from opd_core.runs.queue import TASK_NAME, celery_config

log = structlog.get_logger()


class Bell:
    """Sends messages, waits for nothing. Thread-safe."""

    def __init__(self, redis_url: str | None) -> None:
        self._redis_url = redis_url
        self._celery: Any = None
        self._away = False

    def ring(self, id: str, queue: str, task: str = TASK_NAME) -> bool:
        """Whether the broker took the message. ``id`` is what the task is about: a job, or a question."""
        if self._redis_url is None:
            return False
        from kombu.exceptions import KombuError, OperationalError

        try:
            self._app(self._redis_url).send_task(task, args=[id], queue=queue, ignore_result=True, retry=False)
        except (KombuError, OperationalError, OSError) as error:
            if not self._away:  # once per outage
                log.warning("bell_failed", id=id, queue=queue, error=type(error).__name__)
            self._away = True
            return False
        self._away = False
        return True

    def _app(self, redis_url: str) -> Any:
        # Celery takes a quarter of a second to import; a process that never rings does not pay it.
        if self._celery is None:
            from celery import Celery

            self._celery = Celery("opd", set_as_current=False)
            self._celery.conf.update(celery_config(redis_url))
            options = self._celery.conf.broker_transport_options
            # A user waits for the answer: find out soon that the broker is away.
            options |= {"socket_timeout": 3, "socket_connect_timeout": 2, "max_retries": 0}
        return self._celery

    def close(self) -> None:
        """Drop the connections."""
        if self._celery is not None:
            self._celery.close()
