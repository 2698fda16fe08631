"""Ctrl-C and SIGTERM as a request that is looked at between steps, instead of an exception anywhere."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A stop was asked for while waiting."""


class StopRequest:
    """Counts how often a stop was asked for: once = in order, twice = at once. Install it in the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._event = threading.Event()

    def install(self) -> StopRequest:
        for number in _ASKING:
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()

    def ask(self) -> None:
        """The same as a signal, from the program itself."""
        self.count += 1
        self._event.set()

    def check(self) -> None:
        """Raises Stopped when a stop was asked for."""
        if self.count:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Raises Stopped at once when a stop is asked for."""
        if self._event.wait(seconds):
            raise Stopped
