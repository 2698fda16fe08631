"""Keeping a job's lease, from a thread of its own: neither a silent trainer nor a slow record delays a beat."""

from __future__ import annotations

import threading
import time
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from opd_core.runs.states import ACTIVE
from opd_core.runs.store import RunStore

WATCH_S = 1.0
"""How often the user's wish is read. The lease itself is renewed every quarter of its length."""

log = structlog.get_logger()


class LeaseKeeper:
    """Renews the lease until closed. ``lost`` and ``cancelled`` are for the supervisor to look at.

    A lease that could not be renewed for its whole length counts as lost: another worker may hold the job by now.
    """

    def __init__(self, store: RunStore, job_id: str, attempt: int, lease_s: float, watch_s: float = WATCH_S) -> None:
        self.lost = False
        self.cancelled = False
        self._store = store
        self._job_id = job_id
        self._attempt = attempt
        self._lease_s = lease_s
        self._watch_s = min(watch_s, lease_s / 4)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        renewed = time.monotonic()  # the claim took it just now
        while not self._closed.wait(self._watch_s):
            now = time.monotonic()
            try:
                if now - renewed >= self._lease_s / 4:
                    self._note(self._store.beat(self._job_id, self._attempt, self._lease_s))
                    renewed = now
                else:
                    self._note(self._look())
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", job_id=self._job_id, error=type(error).__name__)
                self.lost = time.monotonic() - renewed > self._lease_s
            if self.lost:
                return

    def _look(self) -> str | None:
        """What ``beat`` would answer, without writing."""
        job = self._store.get_job(self._job_id)
        held = job is not None and job.attempt == self._attempt and job.status in ACTIVE
        return job.desired_state if job is not None and held else None

    def _note(self, desired: str | None) -> None:
        self.lost = desired is None
        self.cancelled = desired == "cancelled"
