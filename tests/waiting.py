"""Waiting for what only has to happen, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str] = "it did not happen", seconds: float = 30.0
) -> None:
    """Fails with ``what``, if need be told only then. Looks often at first: most things happen at once."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(pause)
        pause = min(1.5 * pause, 0.1)
