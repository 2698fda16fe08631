"""From what the trainer says to the run records and the live stream. Knows no process.

Every record is written before it is published: a viewer never sees what is not there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import structlog

from opd_core.runs.artifacts import RunFiles
from opd_core.runs.live import LiveWriter
from opd_core.runs.rows import Claim, Event
from opd_core.runs.states import TERMINAL, InvalidTransition, Status
from opd_core.runs.store import Level, RunStore
from worker import messages as said
from worker.redact import redact

# A trainer that prints anything else at length must not fill the event log.
_MALFORMED_SHOWN = 10

_STARTING = "starting"  # said before anything of weight is imported
# Phases with a meaning for the status machine; every other phase is for people.
_STATUS_OF_PHASE: dict[str, Status] = {"training": "running", "finalizing": "finalizing"}


log = structlog.get_logger()


class Recorder:
    """Takes one attempt's lines. Writes of an attempt that has lost its lease do nothing (RunStore sees to it)."""

    def __init__(self, claim: Claim, store: RunStore, live: LiveWriter) -> None:
        self.report: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.begun = False  # it could be started: what goes wrong from here on may be the job's fault
        self.training = False  # from the first step on there is something to save
        self.checkpoints = 0
        self._job_id = claim.job_id
        self._attempt = claim.attempt
        self._store = store
        self._live = live
        self._malformed = 0
        self._seen_events = 0

    def take(self, line: bytes) -> None:
        """One line of the trainer's standard output. What is not a message becomes a warning event."""
        if not line.strip():
            return
        try:
            self._apply(said.parse(line))
        except (said.MalformedLine, InvalidTransition) as problem:
            self._note_malformed(problem)

    def event(self, level: Level, name: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        """A line of the job's audit log."""
        self._store.add_event(self._job_id, level, name, message, data, self._attempt)
        self.publish_events()

    def publish_status(self) -> None:
        """Tell viewers how the job stands now, with every event up to here."""
        job = self._store.get_job(self._job_id)
        if job is not None:
            status = {"status": job.status, "phase": job.phase, "attempt": job.attempt}
            self._live.publish(self._job_id, "status", status)
        self.publish_events()

    def publish_end(self) -> None:
        """The last live updates of this attempt, and of the job if its status is terminal."""
        self.publish_status()
        job = self._store.get_job(self._job_id)
        if job is not None and job.status in TERMINAL:
            self._live.publish(self._job_id, "end", {"status": job.status})

    def publish_events(self) -> None:
        """Publish the audit log's new lines, also those that the records wrote themselves (claimed, finished...)."""
        more = True
        while more:
            events, more = self._store.list_events(self._job_id, after=self._seen_events)
            for event in events:
                self._seen_events = event.seq
                if event.attempt == self._attempt:
                    self._live.publish(self._job_id, "event", _as_json(event))

    def _apply(self, message: said.Message) -> None:
        job_id, attempt, store = self._job_id, self._attempt, self._store
        match message:
            case said.Phase(phase=phase):
                self.begun = self.begun or phase != _STARTING
                self.training = self.training or phase == "training"
                store.set_phase(job_id, attempt, phase, _STATUS_OF_PHASE.get(phase))
                self.publish_status()
            case said.Event():
                self.event(message.level, message.name, message.message, message.data)
            case said.Progress():
                progress = message.model_dump(exclude={"type"})
                store.set_progress(job_id, attempt, progress)
                self._live.publish(job_id, "progress", progress)
            case said.Metrics(step=step, values=values):
                store.add_metrics(job_id, attempt, step, values)
                self._live.publish(job_id, "metrics", {"step": step, "values": values})
            case said.Records(step=step, payload=payload, profile=profile):
                self._live.publish_records(job_id, step, attempt, payload, profile)
            case said.Checkpoint():
                self._checkpoint(message)
            case said.CheckpointRemoved(name=name):
                store.prune_checkpoint(job_id, attempt, name)
            case said.Accuracy():
                known = message.model_dump(exclude={"type"}, exclude_unset=True)
                store.set_accuracy(job_id, attempt, known)
                self._live.publish(job_id, "accuracy", known)
            case said.Warned(message=text):
                store.add_warning(job_id, attempt, text)
                self.event("warning", "warning", text)
            case said.Result(report=report):
                self.report = report
            case said.Failed(error=error):
                self.error = error.model_dump()

    def _checkpoint(self, message: said.Checkpoint) -> None:
        described = message.model_dump(exclude={"type"})
        checkpoint = self._store.add_checkpoint(self._job_id, self._attempt, **described)
        if checkpoint is None:
            return
        self.checkpoints += 1
        live = {"id": checkpoint.id, **{key: described[key] for key in ("name", "step", "kind", "size_bytes")}}
        self._live.publish(self._job_id, "checkpoint", live)

    def _note_malformed(self, problem: Exception) -> None:
        self._malformed += 1
        if self._malformed > _MALFORMED_SHOWN:
            return
        last = " (further ones are not shown)" if self._malformed == _MALFORMED_SHOWN else ""
        self.event("warning", "malformed_line", redact(f"the trainer printed something else: {problem}{last}"))


class LogPublisher:
    """Writes the trainer's log into the run directory: at the end, and every so often in case there is none."""

    def __init__(self, files: RunFiles, attempt: int, every_s: float = 30.0) -> None:
        self._files = files
        self._name = f"logs/attempt-{attempt}.log"
        self._every_s = every_s
        self._written_at = time.monotonic()
        self._written_lines = 0

    def write_if_due(self, lines: int, text: Callable[[], str]) -> None:
        """``lines`` tells whether there is anything new."""
        if lines != self._written_lines and time.monotonic() - self._written_at >= self._every_s:
            self.write(lines, text)

    def write(self, lines: int, text: Callable[[], str]) -> None:
        self._written_at = time.monotonic()
        try:
            self._files.write_bytes(self._name, redact(text()).encode())
        except OSError as error:
            # A full disk must not keep the attempt's end from being recorded: the log is the lesser loss.
            log.warning("log_not_written", name=self._name, error=str(error))
            return
        self._written_lines = lines


def _as_json(event: Event) -> dict[str, Any]:
    """An event as the API shows it."""
    fields = asdict(event)
    del fields["job_id"]
    created = datetime.fromtimestamp(event.created_at, UTC).isoformat().replace("+00:00", "Z")
    return {"object": "event", **fields, "created_at": created}
