"""How long a trainer may write: the end of its supervisor's lease, handed on through a small file.

A supervisor that is stopped or cut off from the database loses its lease without knowing it, and its trainer goes on
beside the next attempt's. The records refuse such late writes; files have no such door, so the trainer looks here
before it changes one and waits while the lease is not current. Then either the lease is renewed, or the supervisor
wakes up, finds it lost and ends its trainer. What has begun before the end may still land: names carry the attempt.
"""

from __future__ import annotations

import time
from pathlib import Path

_LOOK_S = 0.1


class Deadline:
    """One file on one machine, in seconds of its monotonic clock, which all its processes share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def extend(self, until: float) -> None:
        """The lease now lasts until then."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(repr(until), encoding="ascii")
        fresh.replace(self._path)

    def wait(self) -> None:
        """Return at once while the lease lasts, else as soon as it is renewed."""
        while float(self._path.read_text(encoding="ascii")) < time.monotonic():
            time.sleep(_LOOK_S)
