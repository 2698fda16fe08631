"""How a process of a job starts and ends: the trainer, those that follow it, and the answers.

It ends with its supervisor, imports without searching for garbage, has one channel for messages, and says by its exit
code how it went. Nothing here imports torch.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Two trainers of one job must never run: this one ends when its supervisor does, however that ends."""
    supervisor = os.environ.get("OPD_SUPERVISOR_PID")
    if supervisor is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(supervisor):
        sys.exit("the supervisor is gone")


def message_channel() -> Callable[[dict[str, Any]], None]:
    """Messages own the real stdout; whatever else prints goes to the log."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message, allow_nan=False) + "\n")

    return emit


@contextmanager
def importing() -> Iterator[None]:
    """Around the import of torch and all that: a million objects that stay, and that nobody need search for garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave(exit_code: int) -> NoReturn:
    """Exit without a last search for garbage, which takes two seconds and finds what ends with the process anyway."""
    gc.freeze()
    sys.exit(exit_code)
