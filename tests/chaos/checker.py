"""What must hold after any history of faults, read from what the runs have left: records, files, final weights.

Every finding is one sentence. An undisturbed run of the same spec and seed is the measure: a step that took effect
twice, or not at all, shows in the weights and in the counted tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from opd_core.runs import records
from opd_core.runs.artifacts import RunFiles, job_files
from opd_core.runs.rows import Attempt, Event, Job
from opd_core.runs.settings import Settings
from opd_core.runs.states import TERMINAL
from opd_core.runs.store import RunStore

WEIGHTS = "student/model.safetensors"
# What an attempt's own worker writes; what others write about it (requests, its end) may come later.
_OWN = {"trainer_started", "resumed", "self_check", "checkpoint_damaged", "trainer_crashed", "warning", "disk_low"}


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run of a spec came to."""

    weights: str
    student_tokens: int
    teacher_tokens: int
    recorded: dict[int, Any]

    @classmethod
    def of(cls, files: RunFiles) -> Reference:
        """Read a finished run directory."""
        budget = files.read_json("report.json")["budget"]
        return cls(
            sha256(files.read_bytes(WEIGHTS)).hexdigest(),
            budget["student_tokens"],
            budget["teacher_tokens"],
            records.recorded_steps(files),
        )


def check(store: RunStore, settings: Settings, accepted: dict[str, Reference], steps: int) -> list[str]:
    """Every finding about the jobs that were accepted with 201; ``steps`` is how many each had to do."""
    findings = []
    for job_id, reference in accepted.items():
        job = store.get_job(job_id)
        if job is None:
            findings.append(f"{job_id}: accepted and lost")
            continue
        files = job_files(settings.artifacts_url, job_id)
        said = [*_end(store, job), *_attempts(store, job), *_events(store, job)]
        said += [*_steps(store, job, steps), *_result(store, files, job, reference), *_checkpoints(store, files, job)]
        findings += [f"{job_id}: {sentence}" for sentence in said]
    return findings


def _end(store: RunStore, job: Job) -> Iterator[str]:
    if job.status != "succeeded":
        why = job.error["message"] if job.error else job.phase
        yield f"ended as {job.status} ({why})"
    if job.worker is not None or job.finished_at is None:
        yield "is over and still has a worker or no end"
    ends = store.events_of(job.id, ["finished"])
    if len(ends) != 1:
        yield f"reached a terminal status {len(ends)} times"
    if job.status not in TERMINAL:
        yield f"is left {job.status}"


def _attempts(store: RunStore, job: Job) -> Iterator[str]:
    attempts: list[Attempt] = store.list_attempts(job.id)
    if [attempt.attempt for attempt in attempts] != list(range(1, job.attempt + 1)):
        yield f"attempts {[attempt.attempt for attempt in attempts]} of {job.attempt}"
    claimed = [event.attempt for event in store.events_of(job.id, ["claimed"])]
    if claimed != list(range(1, job.attempt + 1)):
        yield f"claims {claimed} of {job.attempt}"
    for attempt in attempts:
        if attempt.finished_at is None:
            yield f"attempt {attempt.attempt} has no end"
    for before, after in pairwise(attempts):
        if before.finished_at is not None and before.finished_at > after.started_at:
            yield f"attempts {before.attempt} and {after.attempt} overlap"


def _events(store: RunStore, job: Job) -> Iterator[str]:
    events: list[Event] = []
    more, after = True, 0
    while more:
        page, more = store.list_events(job.id, after, 1000)
        events += page
        after = page[-1].seq if page else after
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield "the audit log has gaps or doubles"
    holder = 0
    for event in events:
        if event.type == "claimed":
            holder = event.attempt or 0
        elif event.type in _OWN and event.attempt != holder:
            yield f"attempt {event.attempt} wrote '{event.type}' while attempt {holder} held the job"


def _steps(store: RunStore, job: Job, steps: int) -> Iterator[str]:
    found = [step for step, _ in store.get_metrics(job.id)]
    if found != list(range(steps + 1)):
        yield f"metrics of steps {found} instead of 0..{steps}"
    if job.progress.get("step") != steps:
        yield f"progress ends at {job.progress.get('step')}"


def _result(store: RunStore, files: RunFiles, job: Job, reference: Reference) -> Iterator[str]:
    if job.status != "succeeded":
        return
    found = Reference.of(files)
    if found.weights != reference.weights:
        yield "other final weights than the undisturbed run"
    for name in ("student_tokens", "teacher_tokens"):
        if getattr(found, name) != getattr(reference, name):
            yield f"{name} {getattr(found, name)} instead of {getattr(reference, name)}: a step was counted otherwise"
    if found.recorded != reference.recorded:
        yield f"recorded {found.recorded} instead of {reference.recorded}"
    report = store.get_report(job.id)
    if report is None or report["budget"]["student_tokens"] != found.student_tokens:
        yield "the report in the records is not the one on disk"


def _checkpoints(store: RunStore, files: RunFiles, job: Job) -> Iterator[str]:
    indexed = store.list_checkpoints(job.id)
    for before, after in pairwise(indexed):
        if before.attempt > after.attempt or (before.attempt == after.attempt and before.step > after.step):
            yield f"checkpoint {after.name} was indexed behind {before.name}"
    for row in indexed:
        if not files.exists(f"{row.name if row.kind == 'export' else f'checkpoints/{row.name}'}/manifest.json"):
            yield f"{row.name} is indexed and gone"
    export = [row for row in indexed if row.kind == "export"]
    if job.status == "succeeded" and len(export) != 1:
        yield f"{len(export)} exports are indexed"
    for row in export:
        for entry in row.files:
            try:
                data = files.read_bytes(f"{row.name}/{entry['name']}")
            except FileNotFoundError:
                yield f"{row.name}/{entry['name']} is indexed and missing"
            else:
                if sha256(data).hexdigest() != entry["sha256"]:
                    yield f"{row.name}/{entry['name']} is not what was indexed"


def leftovers(folder: Path) -> list[str]:
    """Half-written things below a finished stack's artifacts."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*.tmp")]
