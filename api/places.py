"""How many live streams may be open, of one token and in all: each holds a connection to the broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.problems import ProblemError


class Places:
    """The open live streams, by token. Used from the event loop alone."""

    def __init__(self, per_token: int, total: int) -> None:
        self._per_token, self._total = per_token, total
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open.total()

    @contextmanager
    def place(self, name: str) -> Iterator[None]:
        """One stream of ``name`` for as long as the block runs. Raises a 429 when there is no place."""
        if self.open >= self._total:
            raise _no_place(f"{self._total} live streams are open, the most of this service (OPD_STREAMS_TOTAL)")
        if self._open[name] >= self._per_token:
            raise _no_place(
                f"{name!r} has {self._per_token} live streams open, the most of one token (OPD_STREAMS_PER_TOKEN)"
            )
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]


def _no_place(detail: str) -> ProblemError:
    return ProblemError(429, "too_many_streams", detail, retry_after_s=5)
