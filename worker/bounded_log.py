"""The trainer's free text, kept within a fixed size: its beginning and its end."""

from __future__ import annotations

import threading
from collections import deque

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 192 * 1024


class BoundedLog:
    """Lines from one writer thread; the first ``head`` and the last ``tail`` bytes are kept.

    The beginning says what was started and with which versions, the end says why it stopped.
    """

    def __init__(self, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> None:
        self._head_room = head
        self._tail_room = tail
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self.lines = 0

    def write(self, line: bytes) -> None:
        with self._lock:
            self.lines += 1
            if not self._tail and len(line) <= self._head_room:
                self._head.append(line)
                self._head_room -= len(line)
                return
            line = line[: self._tail_room]
            self._tail.append(line)
            self._tail_size += len(line)
            while self._tail_size > self._tail_room:
                self._tail_size -= len(self._tail.popleft())
                self._dropped += 1

    def text(self) -> str:
        """Everything kept, with one line that says how much is missing in the middle."""
        with self._lock:
            gap = [b"[... %d lines left out ...]\n" % self._dropped] if self._dropped else []
            return b"".join([*self._head, *gap, *self._tail]).decode(errors="replace")

    def last_lines(self, count: int) -> str:
        """The last ``count`` lines."""
        return "\n".join(self.text().splitlines()[-count:])
