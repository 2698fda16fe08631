"""Run a command that dies with its parent.

``python leash.py PARENT_PID SIGNAL NICE COMMAND...`` asks the kernel (Linux: ``PR_SET_PDEATHSIG``) to send
SIGNAL when the parent dies, lowers the priority by NICE and then becomes COMMAND: same process id, same pipes.
Without it a ``kill -9`` of a worker leaves its trainer running, and the next attempt trains beside it.

The request survives ``exec`` and needs no ``preexec_fn``, which is unsafe beside threads. It is bound to the
*thread* that started the process, so start leashed commands from a thread that lives as long as they may.
Elsewhere than on Linux the command simply runs; a trainer also watches its parent's process id itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_SESSION = "/proc/self/autogroup"


def leashed(command: Sequence[str], *, signal: int, nice: int = 0) -> list[str]:
    """The command line that runs ``command`` tied to the calling process."""
    # -I -S: no site-packages, no environment, so that the extra interpreter costs a few milliseconds.
    own = [sys.executable, "-I", "-S", __file__]
    return [*own, str(os.getpid()), str(int(signal)), str(nice), *command]


def _lower_session(nice: int) -> None:
    """Where Linux shares the cores between sessions, a process's priority says nothing to other sessions."""
    for _ in range(20):
        try:
            with open(_SESSION, "w") as file:  # noqa: PTH123 - pathlib is slow to import
                file.write(str(nice))
        except BlockingIOError:  # ordinary users may ask once in a tenth of a second, all of them together
            time.sleep(0.11)
        except OSError:  # a kernel without such groups, or a container that may not: nothing depends on it
            return
        else:
            return


def _main(arguments: list[str]) -> None:
    parent, signal, nice, command = int(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3:]
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the request was in place
        sys.exit(1)
    if nice:
        os.nice(nice)
        if os.getsid(0) == os.getpid():
            _lower_session(nice)
    os.execvp(command[0], command)  # noqa: S606 - becoming the command is the point


if __name__ == "__main__":
    _main(sys.argv[1:])
