"""Keeping a job's lease, from a thread of its own: neither a silent trainer nor a slow record delays a beat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from opd_core.runs.states import ACTIVE
from opd_core.runs.store import RunStore

WATCH_S = 1.0
"""How often the user's wish is read. The lease itself is renewed every quarter of its length."""

log = structlog.get_logger()


class LeaseKeeper:
    """Renews the lease until closed. ``lost`` and what the user wishes are for the supervisor to look at.

    A lease that could not be renewed for its whole length counts as lost: another worker may hold the job by now.
    ``extended`` is told until when the lease lasts, on the monotonic clock: at once and with every beat.
    """

    def __init__(
        self,
        store: RunStore,
        job_id: str,
        attempt: int,
        lease_s: float,
        watch_s: float = WATCH_S,
        *,
        extended: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.lost = False
        self.cancelled = False
        self.paused = False
        self.save_wanted = False
        self._store = store
        self._job_id = job_id
        self._attempt = attempt
        self._lease_s = lease_s
        self._watch_s = min(watch_s, lease_s / 4)
        self._extended = extended
        self._renewed = time.monotonic()  # the claim took it just now
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._extended(self._renewed + self._lease_s)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        try:
            while not self.lost and not self._closed.wait(self._watch_s):
                self._try()
        finally:
            if not self._closed.is_set():  # whatever ended this thread: nobody renews the lease any more
                self.lost = True

    def _try(self) -> None:
        try:
            self._beat(time.monotonic())
            self._look()
        except (SQLAlchemyError, OSError) as error:  # OSError: the trainer was not told, it waits for the next beat
            log.warning("lease_not_renewed", job_id=self._job_id, error=type(error).__name__)
            self.lost = time.monotonic() - self._renewed > self._lease_s

    def _beat(self, now: float) -> None:
        due = now - self._renewed >= self._lease_s / 4
        if due and self._store.beat(self._job_id, self._attempt, self._lease_s) is not None:
            self._renewed = now
            self._extended(now + self._lease_s)

    def _look(self) -> None:
        job = self._store.get_job(self._job_id)
        if job is None or job.attempt != self._attempt or job.status not in ACTIVE:
            self.lost = True
            return
        self.cancelled = job.desired_state == "cancelled"
        self.paused = job.desired_state == "pause"
        self.save_wanted = job.save_wanted
