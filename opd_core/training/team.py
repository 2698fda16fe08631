"""The leader's side of a job of several processes: it starts the others, and none of them outlives the run.

They are this program once more, with a number. The kernel ends them when the leader ends, however that is (Linux; on
other systems their next exchange fails). The other way round a thread of the leader watches each of them: one that
dies while the run goes on takes the leader along, since it may be waiting for what will never come.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from opd_core.runs.artifacts import RunFiles
from opd_core.spec import JobSpec
from opd_core.training.ranks import ALONE, Ranks, joined

_LAST_WORDS_S = 3.0  # for the leader to fail by itself, and to say why
_GOODBYE_S = 60.0


@contextmanager
def team(spec: JobSpec, files: RunFiles, device: torch.device, *, attempt: int) -> Iterator[Ranks]:
    """The leader's ``Ranks`` for ``resources.processes`` of a resolved spec. Call it from a thread that outlives it."""
    count = spec.resources.processes
    if count == 1:
        yield ALONE
        return
    with tempfile.TemporaryDirectory(prefix="opd-processes-") as folder:
        meeting = Path(folder)
        (meeting / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        members = [_Member(number, count, meeting, files.url, attempt) for number in range(1, count)]
        # Ended before they notice that their leader has left, and also where they never met.
        with _ended(members), joined(0, count, meeting, device) as ranks, _ended(members):
            yield ranks
            for member in members:
                member.wait()


@contextmanager
def _ended(members: list[_Member]) -> Iterator[None]:
    try:
        yield
    finally:
        for member in members:
            member.end()


class _Member:
    """Another process of the job."""

    def __init__(self, number: int, count: int, meeting: Path, out: str, attempt: int) -> None:
        self._name = f"process {number + 1} of {count}"
        self._released = False
        command = [sys.executable, "-m", "opd_core.training.main", "--spec", str(meeting / "spec.json")]
        command += ["--out", out, "--attempt", str(attempt), "--number", str(number), "--meeting", str(meeting)]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "OPD_SUPERVISOR_PID": str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=2,  # only the leader has the channel of messages; whatever this one prints is log
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def wait(self) -> None:
        """It has been told that the run is over."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_S)

    def end(self) -> None:
        """Now, if it still runs."""
        self._released = True
        self._process.kill()
        self._process.wait()

    def _watch(self) -> None:
        code = self._process.wait()
        if code == 0 or self._released:
            return
        sys.stderr.write(f"{self._name} ended with code {code}: the run cannot go on without it\n")
        sys.stderr.flush()
        time.sleep(_LAST_WORDS_S)
        if not self._released:
            os._exit(1)
