"""What a worker's main process and its one pool process tell each other: "drain", and the current job.

Celery delivers the news of a shutdown to the main process, while the supervisor runs in the pool process. A page of
anonymous shared memory, made before the fork, carries one byte one way and a job id the other.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

_JOB_BYTES = 128  # an id is about 30 characters


class Slot:
    """One training slot. Make it before the pool forks."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 1 + _JOB_BYTES)

    def drain(self) -> None:
        """Ask the supervisor to checkpoint and give its job back."""
        self._page[0] = 1

    def draining(self) -> bool:
        return self._page[0] == 1

    @contextmanager
    def occupied_by(self, job_id: str) -> Iterator[None]:
        """Show ``job_id`` as the current job for as long as the block runs."""
        self._show(job_id)
        try:
            yield
        finally:
            self._show("")

    def job(self) -> str | None:
        """The id of the job that is being trained here."""
        return self._page[1:].rstrip(b"\0").decode() or None

    def _show(self, job_id: str) -> None:
        self._page[1:] = job_id.encode().ljust(_JOB_BYTES, b"\0")


SLOT = Slot()
"""This worker's slot. worker/app.py imports it before Celery forks its pool."""
