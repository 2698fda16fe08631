"""One part of the service as a child process: its log file, its readiness, and an end that leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from worker.leash import leashed

_LOG_LIMIT = 10 * 1024 * 1024  # a longer log is set aside as NAME.log.1 at the next start


class PartFailed(RuntimeError):
    """A part did not come up, or died again; the message says which one and shows the end of its log."""


@dataclass
class Part:
    """What to run and how to know that it is ready. ``grace_s``: how long it may take to stop."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    nice: int = 0
    ready_within_s: float = 180.0
    grace_s: float = 10.0


class RunningPart:
    """A started part. Its process leads its own group and dies with this process (see worker/leash.py)."""

    def __init__(self, part: Part, home: Path) -> None:
        self.part = part
        self.log = home / "logs" / f"{part.name}.log"
        self._home = home
        self.deaths = 0
        self._process = self._start()

    def restart(self) -> None:
        """Count a death and start again."""
        self.deaths += 1
        self._end_group()
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait_until_ready(self, asleep: Callable[[float], None] = time.sleep) -> None:
        """Raises PartFailed when it ends first or takes longer than ``part.ready_within_s``."""
        deadline = time.monotonic() + self.part.ready_within_s
        while not self.part.ready():
            if self.exit_code() is not None:
                raise PartFailed(f"The {self.part.name} ended while starting ({self.how_it_ended()}).{self.excerpt()}")
            if time.monotonic() > deadline:
                raise PartFailed(
                    f"The {self.part.name} is not ready after {self.part.ready_within_s:.0f} s.{self.excerpt()}"
                )
            asleep(0.1)

    def ask_to_stop(self) -> None:
        """SIGTERM to the part itself; its own children are its business."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within ``seconds``."""
        try:
            self._process.wait(timeout=max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """SIGTERM, ``part.grace_s`` of patience, then SIGKILL of what is left of its group."""
        self.ask_to_stop()
        self.wait(self.part.grace_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL of the whole group; fine if it is gone."""
        self._end_group()
        self._process.wait()

    def how_it_ended(self) -> str:
        code = self._process.returncode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def excerpt(self, lines: int = 15) -> str:
        """The end of the log, for an error message."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 64 * 1024))
            last = file.read().decode(errors="replace").splitlines()[-lines:]
        return "".join(f"\n  {self.part.name} | {line}" for line in last) + f"\n  (all of it: {self.log})"

    def _start(self) -> subprocess.Popen[bytes]:
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                leashed(self.part.command, signal=signal.SIGTERM, nice=self.part.nice),
                cwd=self._home,  # not the user's directory: a package of theirs could have the name of one of ours
                env={**os.environ, **self.part.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only us: we stop the parts, in order
            )

    def _end_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
