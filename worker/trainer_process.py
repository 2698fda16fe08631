"""The training process: started in its own process group, tied to this one, read without ever blocking it.

Knows processes and pipes; knows neither messages (worker/protocol.py) nor records.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

from opd_core.runs.settings import Settings
from worker.bounded_log import BoundedLog
from worker.leash import leashed

TRAINER: tuple[str, ...] = (sys.executable, "-m", "opd_core.training.main")

QUIET: dict[str, str] = {
    "GOMP_SPINCOUNT": "0",  # waiting threads sleep instead of burning the core that another process needs
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""What every process that imports torch here should have in its environment before it does."""

# A line of token records is about 100 KB; what is longer than this is not a message.
_LONGEST_LINE = 64 * 1024 * 1024
# The trainer talks to its supervisor only: it needs neither the API nor the queue nor the database.
_NOT_FOR_THE_TRAINER = ("OPD_API_TOKEN", "OPD_REDIS_URL", "OPD_DATABASE_URL", "OPD_SUPERVISOR_PID", "OPD_SECRETS_DIR")


def trainer_threads(requested: int | str, *, fallback: int | None = None, processes: int = 1) -> int:
    """CPU threads of each process of the trainer.

    The job's wish, else their share of ``fallback`` (OPD_TRAINER_THREADS), else of all cores but one.

    One core stays with the API and the dashboard: two compute threads that wait for each other beside a busy process
    are several times slower than one.
    """
    if isinstance(requested, int):
        return requested
    if fallback is not None:
        return max(1, fallback // processes)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (cores - 1) // processes)


def trainer_environment(settings: Settings, threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """The trainer's environment: ``base`` without our credentials, plus roots and thread settings."""
    environment = {name: value for name, value in base.items() if name not in _NOT_FOR_THE_TRAINER}
    return environment | {
        "OPD_HOME": str(settings.home),
        "OPD_MODEL_ROOTS": ":".join(str(root) for root in settings.model_roots),
        "OPD_DATA_ROOTS": ":".join(str(root) for root in settings.data_roots),
        "OPD_SUPERVISOR_PID": str(os.getpid()),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        **QUIET,
    }


class TrainerProcess:
    """A running trainer. Start it from a thread that outlives it (see worker/leash.py)."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log = BoundedLog()
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            leashed(command, signal=signal.SIGKILL),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pumps = [
            threading.Thread(target=_pump, args=(self._process.stdout, self.lines.put), daemon=True),
            threading.Thread(target=_pump, args=(self._process.stderr, self.log.write), daemon=True),
        ]
        for pump in self._pumps:
            pump.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative = killed by that signal."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask for a checkpoint and exit 75. Only the trainer itself hears it; its helpers stop with it."""
        if self._process.poll() is None:
            self._process.terminate()

    def save(self) -> None:
        """Ask for a checkpoint after the step, and to go on. It must have said that it trains: before, it dies."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End the whole process group now, also what a dead trainer left behind."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def finish_reading(self) -> None:
        """After the end: wait until everything it said is in ``lines`` and ``log``."""
        for pump in self._pumps:
            pump.join(timeout=5.0)


def _pump(pipe: IO[bytes], put: Callable[[bytes], object]) -> None:
    with pipe:
        while line := pipe.readline(_LONGEST_LINE):
            put(line)
