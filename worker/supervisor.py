"""One attempt at a job: start the trainer, listen, stop it when told to, and say how it ended.

The training process is the only place where tensors live. This one stays responsive whatever happens there: the lease
is kept by a thread (worker/lease.py), the pipes are read by threads (worker/trainer_process.py), and this loop looks
at both several times a second.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import structlog

from opd_core.runs.artifacts import MANIFEST, job_files
from opd_core.runs.deadline import Deadline
from opd_core.runs.live import LiveWriter
from opd_core.runs.rows import Claim
from opd_core.runs.settings import Settings
from opd_core.runs.states import InvalidTransition
from opd_core.runs.store import RunStore
from worker.disk import WAITING, Disks
from worker.lease import LeaseKeeper
from worker.memory import oom_kills
from worker.protocol import LogPublisher, Recorder
from worker.redact import redact
from worker.trainer_process import TRAINER, TrainerProcess, trainer_environment, trainer_threads

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75
NO_TRAINER = "waiting for a worker that can start a trainer"

# A server that the job needs is gone: the job rests until somebody has seen to it.
_UNREACHABLE = frozenset({"teacher_unreachable", "rollout_unreachable"})

_TICK_S = 0.2
_LOG_LINES_IN_EVENT = 20

log = structlog.get_logger()


class Stop(IntEnum):
    """Why the trainer is being stopped. A higher reason replaces a lower one."""

    DRAIN = 1  # this worker is shutting down; the job goes back to the queue
    DISK = 2  # the same, and no worker takes it before there is room again
    PAUSE = 3  # the same, but the job rests until the user resumes it
    MAX_RUNTIME = 4
    CANCEL = 5
    LOST = 6  # the lease is gone: another worker may hold the job


@dataclass(frozen=True)
class Ending:
    """What becomes of the job. ``crashed`` and ``later`` (what it waits for) are for 'queued' only."""

    status: Literal["succeeded", "failed", "cancelled", "queued", "paused", "lost"]
    reason: str
    error: dict[str, Any] | None = None
    crashed: bool = False
    later: str | None = None


def judge(
    stop: Stop | None,
    exit_code: int,
    report: dict[str, Any] | None,
    error: dict[str, Any] | None,
    max_runtime_s: float,
    *,
    begun: bool = True,
) -> Ending:
    """The job's fate, from why the trainer was stopped (if it was), how it exited and what it said last.

    One that has not ``begun`` never saw the job: that it gave up is the machine's fault, and costs no restart.
    """
    how = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    if stop is Stop.LOST:
        return Ending("lost", "the lease was lost")
    if stop is Stop.CANCEL:
        return Ending("cancelled", f"cancelled ({how})")
    if exit_code == 0 and report is not None:
        return Ending("succeeded", "succeeded")
    if exit_code == 0:
        silent = _system_error("no_report", "the trainer ended without a report")
        return Ending("failed", "no report", silent)
    if error is not None and (exit_code == EXIT_USER_ERROR or not error["retryable"]):
        return Ending("failed", f"{error['code']} ({how})", error)
    if stop is Stop.MAX_RUNTIME:
        return Ending("failed", f"max_runtime ({how})", _too_long(max_runtime_s))
    if stop is Stop.PAUSE:
        return Ending("paused", f"paused ({how})")
    if stop is Stop.DISK:
        return Ending("queued", f"waits for disk space ({how})", later=WAITING)
    if stop is Stop.DRAIN:
        return Ending("queued", f"drained ({how})")
    if error is not None and error["code"] in _UNREACHABLE:
        return Ending("paused", f"{error['code']} ({how})", error)
    if error is not None:
        # To be tried again, named if it is the last time. A full disk is not empty the next moment.
        later = "waiting after a full disk" if error["code"] == "disk_full" else None
        return Ending("queued", f"{error['code']} ({how})", error, crashed=True, later=later)
    if not begun and exit_code > 0:
        return Ending("queued", f"the trainer could not start here ({how})", later=NO_TRAINER)
    return Ending("queued", how, crashed=True)


class Supervisor:
    """Runs one claimed attempt to its end. Call ``run`` from a thread that outlives the trainer (worker/leash.py)."""

    def __init__(
        self,
        claim: Claim,
        store: RunStore,
        live: LiveWriter,
        settings: Settings,
        *,
        draining: Callable[[], bool],
        command: Sequence[str] = TRAINER,
        default_threads: int | None = None,
    ) -> None:
        self._claim = claim
        self._store = store
        self._settings = settings
        self._draining = draining
        self._command = command
        self._files = job_files(settings.artifacts_url, claim.job_id)
        self._recorder = Recorder(claim, store, live)
        resources = claim.spec["resources"]
        self._threads = trainer_threads(
            resources["threads"], fallback=default_threads, processes=resources["processes"]
        )
        self._max_runtime_s = float(claim.spec["schedule"]["max_runtime_s"])
        self._deadline = time.monotonic() + self._max_runtime_s - self._earlier_runtime_s()
        self._disks = Disks(settings)
        self._oom_kills = oom_kills()
        self._stop: Stop | None = None
        self._kill_at = float("inf")
        self._asked_to_save = False
        self._saved = 0

    def run(self) -> Ending:
        """Blocks until the attempt has ended and its end is recorded."""
        claim, settings = self._claim, self._settings
        with (
            _scratch(settings.home / "run" / "jobs", claim) as scratch,
            LeaseKeeper(
                self._store,
                claim.job_id,
                claim.attempt,
                settings.lease_s,
                extended=Deadline(scratch / "lease").extend,
            ) as lease,
        ):
            self._forget_what_is_gone()
            spec = scratch / "spec.json"
            spec.write_text(json.dumps(claim.spec), encoding="utf-8")
            command = [*self._command, "--spec", str(spec), "--out", self._files.url, "--attempt", str(claim.attempt)]
            environment = {
                **trainer_environment(settings, self._threads, os.environ),
                "TMPDIR": str(scratch),
                "OPD_LEASE_FILE": str(scratch / "lease"),
            }
            try:
                trainer = TrainerProcess(command, environment)
            except OSError as error:  # no such interpreter, no more processes
                reason = f"the trainer cannot be started here: {error.strerror}"
                return self._settle(Ending("queued", reason, later=NO_TRAINER), None, "")
            try:
                self._note_start(trainer.pid)
                exit_code = self._listen(trainer, lease)
            finally:
                # Also on the way out of an error or a cold shutdown: no trainer without a supervisor.
                trainer.kill()
            return self._record_end(trainer, exit_code)

    def _earlier_runtime_s(self) -> float:
        """What earlier attempts have used of the job's time. Waiting in the queue does not count."""
        attempts = self._store.list_attempts(self._claim.job_id)
        return sum(past.finished_at - past.started_at for past in attempts if past.finished_at is not None)

    def _forget_what_is_gone(self) -> None:
        """An attempt may have died between removing a checkpoint and saying so."""
        for row in self._store.list_checkpoints(self._claim.job_id):
            folder = row.name if row.kind == "export" else f"checkpoints/{row.name}"
            if not self._files.exists(f"{folder}/{MANIFEST}"):
                self._store.prune_checkpoint(self._claim.job_id, self._claim.attempt, row.name)

    def _note_start(self, pid: int) -> None:
        claim = self._claim
        self._store.start_attempt(claim.job_id, claim.attempt, host=socket.gethostname(), pid=pid)
        self._recorder.publish_status()
        message = f"trainer started with {self._threads} thread{'s' if self._threads > 1 else ''}"
        self._recorder.event("info", "trainer_started", message, {"pid": pid, "threads": self._threads})
        log.info("trainer_started", job_id=claim.job_id, attempt=claim.attempt, pid=pid, threads=self._threads)

    def _listen(self, trainer: TrainerProcess, lease: LeaseKeeper) -> int:
        logs = LogPublisher(self._files, self._claim.attempt)
        while (exit_code := trainer.exit_code()) is None:
            self._stop_if_due(trainer, lease)
            self._save_if_asked(trainer, lease)
            if self._stop is not Stop.LOST:
                self._take_lines(trainer, _TICK_S)
                logs.write_if_due(trainer.log.lines, trainer.log.text)
        trainer.kill()  # what it left behind would hold the pipes open
        trainer.finish_reading()
        if self._stop is not Stop.LOST:
            self._take_lines(trainer, 0.0)
            logs.write(trainer.log.lines, trainer.log.text)
        return exit_code

    def _take_lines(self, trainer: TrainerProcess, wait_s: float) -> None:
        """Everything that is there; waits up to ``wait_s`` for the first line, and comes back at least every tick."""
        until = time.monotonic() + _TICK_S
        try:
            self._recorder.take(trainer.lines.get(timeout=wait_s) if wait_s else trainer.lines.get_nowait())
            while not wait_s or time.monotonic() < until:
                self._recorder.take(trainer.lines.get_nowait())
        except queue.Empty:
            return

    def _stop_if_due(self, trainer: TrainerProcess, lease: LeaseKeeper) -> None:
        now, settings = time.monotonic(), self._settings
        reasons = (
            (Stop.LOST, lease.lost, 0.0),
            (Stop.CANCEL, lease.cancelled, settings.cancel_grace_s),
            (Stop.MAX_RUNTIME, now >= self._deadline, settings.drain_s),
            (Stop.PAUSE, lease.paused, settings.drain_s),
            (Stop.DISK, full := self._recorder.training and self._disks.too_full_to_go_on(), settings.drain_s),
            (Stop.DRAIN, self._draining(), settings.drain_s),
        )
        for stop, due, grace_s in reasons:
            if due and (self._stop is None or stop > self._stop):
                log.info("stopping_trainer", job_id=self._claim.job_id, reason=stop.name.lower(), grace_s=grace_s)
                self._stop = stop
                # While it loads there is nothing to save, and it would not listen before its first step.
                self._kill_at = now + (grace_s if self._recorder.training else 0.0)
                if stop is Stop.DISK:
                    self._recorder.event("warning", "disk_low", f"{full}: saving a checkpoint, then waiting for room")
                trainer.terminate()
                break
        if now >= self._kill_at:
            trainer.kill()

    def _save_if_asked(self, trainer: TrainerProcess, lease: LeaseKeeper) -> None:
        """Once per wish, which the next checkpoint fulfils."""
        if self._recorder.checkpoints > self._saved:
            self._saved = self._recorder.checkpoints
            self._asked_to_save = lease.save_wanted = False
        if lease.save_wanted and self._recorder.training and self._stop is None and not self._asked_to_save:
            trainer.save()
            self._asked_to_save = True

    def _record_end(self, trainer: TrainerProcess, exit_code: int) -> Ending:
        error = self._recorder.error
        if error is None and self._stop is None and exit_code == -signal.SIGKILL and self._killed_for_memory():
            error = _killed_for_memory(self._claim.spec)
        report, begun = self._recorder.report, self._recorder.begun
        ending = judge(self._stop, exit_code, report, error, self._max_runtime_s, begun=begun)
        return self._settle(ending, exit_code, trainer.log.last_lines(_LOG_LINES_IN_EVENT))

    def _settle(self, ending: Ending, exit_code: int | None, last_lines: str) -> Ending:
        """``exit_code`` is None where there was no trainer."""
        claim, recorder = self._claim, self._recorder
        log.info(
            "attempt_ended", job_id=claim.job_id, attempt=claim.attempt, status=ending.status, reason=ending.reason
        )
        if ending.status == "lost":
            return ending
        self._store.finish_attempt(
            claim.job_id,
            claim.attempt,
            exit_code=exit_code if exit_code is not None and exit_code >= 0 else None,
            signal=-exit_code if exit_code is not None and exit_code < 0 else None,
            reason=ending.reason,
        )
        if ending.crashed or ending.later is NO_TRAINER:
            data = {"reason": ending.reason, "log": redact(last_lines)}
            why = ending.error["message"] if ending.error else ending.reason
            if ending.crashed:
                recorder.event("error", "trainer_crashed", f"the trainer crashed: {why}", data)
            else:
                recorder.event("warning", "trainer_not_started", why, data)
        if ending.status == "paused" and ending.error is not None:
            recorder.event("warning", ending.error["code"], f"{ending.error['message']}: pausing; resume the job then")
            self._pause()
        if ending.status in ("queued", "paused"):  # which of the two is the user's latest wish
            recorded = self._store.requeue(
                claim.job_id,
                claim.attempt,
                crashed=ending.crashed,
                reason=ending.reason,
                error=ending.error,
                later=ending.later,
            )
        else:
            recorded = self._store.finish(claim.job_id, claim.attempt, ending.status, ending.error, recorder.report)
        if not recorded:  # taken away between the last look and now: the job is someone else's story
            return Ending("lost", "the lease was lost")
        recorder.publish_end()
        return ending

    def _pause(self) -> None:
        """Nobody asked for it, so the wish is recorded here."""
        with suppress(InvalidTransition):  # cancelled meanwhile: it will end as that
            self._store.request_pause(self._claim.job_id)

    def _killed_for_memory(self) -> bool:
        """Whether the kernel has killed for memory since this attempt began."""
        kills = oom_kills()
        return kills is not None and self._oom_kills is not None and kills > self._oom_kills


@contextmanager
def _scratch(parent: Path, claim: Claim) -> Iterator[Path]:
    """The attempt's folder for temporary files; what killed attempts of the job left here goes first."""
    for left in parent.glob(f"{claim.job_id}.a*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{claim.job_id}.a{claim.attempt}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _system_error(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "category": "system", "retryable": True}


def _killed_for_memory(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "code": "out_of_memory",
        "message": "the system killed the trainer because memory ran out. In this order: lower batching.micro_tokens "
        f"(now {spec['batching']['micro_tokens']}), which changes no result; lower rollout.prompts_per_step or "
        "rollout.max_new_tokens; give the worker more memory",
        "param": "batching.micro_tokens",
        "category": "resource",
        "retryable": True,
    }


def _too_long(max_runtime_s: float) -> dict[str, Any]:
    return {
        "code": "max_runtime",
        "message": f"the run took longer than schedule.max_runtime_s = {max_runtime_s:g} s; its checkpoints are kept",
        "param": "schedule.max_runtime_s",
        "category": "user",
        "retryable": False,
    }
