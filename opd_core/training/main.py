"""The training process: ``python -m opd_core.training.main --spec SPEC.json --out RUN_DIR --attempt N``.

stdout carries one JSON message per line and nothing else; stderr is the log. SIGTERM: finish the step, save a
checkpoint, exit 75. SIGUSR1: finish the step, save a checkpoint, go on. Exit codes: 0 succeeded, 2 the user's to fix,
75 stopped on request, anything else a crash.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from opd_core.training.process import (
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    die_with_parent,
    importing,
    leave,
    message_channel,
)


def main() -> int:
    """Parse, train, and say how it ended."""
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, required=True, help="job spec, JSON")
    parser.add_argument("--out", required=True, help="run directory: a path or an fsspec URL")
    parser.add_argument("--attempt", type=int, default=1, help="fencing token of this process")
    parser.add_argument("--number", type=int, default=0, help="which of the job's processes this is; 0 leads")
    parser.add_argument("--meeting", type=Path, help="the directory where they meet, for the others")
    arguments = parser.parse_args()
    if arguments.number:
        return _follow(arguments)

    emit = message_channel()
    stop, save = _Flag(), _Flag()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, save)
    emit({"type": "phase", "phase": "starting"})
    with importing():  # late: the first message should not wait for torch
        from safetensors import SafetensorError

        from opd_core.runs.artifacts import RunFiles
        from opd_core.runs.deadline import Deadline
        from opd_core.servers import ServerUnreachable
        from opd_core.spec import JobSpec, UserError
        from opd_core.training import messages
        from opd_core.training.exhausted import resource_error
        from opd_core.training.run import Stopped, train

    emit(messages.phase("reading the job"))  # whatever fails before is the machine's fault
    spec = JobSpec.model_validate_json(arguments.spec.read_text(encoding="utf-8"))
    lease = os.environ.get("OPD_LEASE_FILE")
    files = RunFiles(arguments.out, Deadline(Path(lease)).wait) if lease else RunFiles(arguments.out)
    try:
        train(
            spec,
            files,
            attempt=arguments.attempt,
            emit=emit,
            should_stop=lambda: stop.raised,
            should_save=save.lower,
        )
    except UserError as error:
        emit(messages.error(error.code, error.message, param=error.param, category="user", retryable=False))
        return EXIT_USER_ERROR
    except Stopped:
        return EXIT_STOPPED
    except ServerUnreachable as error:
        code = f"{error.role}_unreachable"
        emit(messages.error(code, str(error), param=error.role, category="resource", retryable=True))
        return EXIT_STOPPED
    except (MemoryError, OSError, RuntimeError, SafetensorError) as error:
        if exhausted := resource_error(error, spec):
            emit(exhausted)
        raise
    return 0


def _follow(arguments: argparse.Namespace) -> int:
    """One of the other processes: when to stop and save is its leader's to hear and to say."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with importing():
        from opd_core.runs.artifacts import RunFiles
        from opd_core.spec import JobSpec
        from opd_core.training.follow import follow

    follow(
        JobSpec.model_validate_json(arguments.spec.read_text(encoding="utf-8")),
        RunFiles(arguments.out),
        number=arguments.number,
        meeting=arguments.meeting,
        attempt=arguments.attempt,
    )
    return 0


class _Flag:
    """Raised by a signal."""

    raised = False

    def __call__(self, *_: object) -> None:
        self.raised = True

    def lower(self) -> bool:
        """Whether it was raised; it is down afterwards."""
        was, self.raised = self.raised, False
        return was


if __name__ == "__main__":
    leave(main())
