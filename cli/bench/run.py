"""Submit the jobs of a plan, wait for them, keep what they left. Safe to kill and start again anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from api.client import ApiError, Client
from api.schemas import Job
from cli.bench.cells import Cell
from cli.bench.ledger import Ledger, done
from cli.bench.record import Outcomes, Record, curve, summary

_POLL_S = 1.0
_SWEEP_S = 30.0  # between looks at all open jobs
_STILL = 3  # waiting jobs after which the others are not looked at
_AHEAD = 16
"""Jobs that wait at the service at a time: enough for many workers, few enough for other people's jobs between."""


@dataclass
class Standing:
    """How far everything is. ``fraction`` counts whole and begun runs, ``now`` is what trains."""

    cells: int
    fraction: float
    finished: int
    failed: int
    now: str


Tell = Callable[[Standing], object]
Say = Callable[[str], object]


def run(client: Client, cells: list[Cell], ledger: Ledger, *, tell: Tell, say: Say, poll_s: float = _POLL_S) -> None:
    """Bring every cell to its end. ``tell`` hears how far it is, ``say`` of every run that has ended."""
    ended = done(ledger.records(), cells)
    ledger.remember(ended.values())
    waiting = [cell for cell in cells if cell.key not in ended]
    open_jobs: dict[str, tuple[Cell, Job]] = {}
    failed = sum(record.status != "succeeded" for record in ended.values())
    finished = len(ended)
    swept = -_SWEEP_S
    while waiting or open_jobs:
        while waiting and len(open_jobs) < _AHEAD:
            cell = waiting.pop(0)
            job = _job_of(client, cell, ledger)
            open_jobs[job.id] = (cell, job)
        # Jobs start in their order: behind some that wait, all do, and asking for each would cost training its time.
        if sweep := time.monotonic() - swept >= _SWEEP_S:
            swept = time.monotonic()
        still = 0
        for job_id, (cell, _) in list(open_jobs.items()):
            job = client.job(job_id)
            open_jobs[job_id] = (cell, job)
            still += job.status == "queued"
            if not sweep and still >= _STILL:
                break
            if job.terminal:
                record = collect(client, cell, job)
                ledger.keep(record)
                del open_jobs[job_id]
                finished += 1
                failed += record.status != "succeeded"
                say(_outcome(record, finished, len(cells)))
        begun = sum(_fraction(cell, job) for cell, job in open_jobs.values())
        now = next((cell.label for cell, job in open_jobs.values() if job.status == "running"), "waiting for a worker")
        tell(Standing(len(cells), finished + begun, finished, failed, now))
        if open_jobs:
            time.sleep(poll_s)


def collect(client: Client, cell: Cell, job: Job) -> Record:
    """Everything that is kept of a job that has ended."""
    record = Record(
        arm=cell.arm,
        task=cell.task,
        seed=cell.seed,
        key=cell.key,
        job=job.id,
        status=job.status,
        error=None if job.error is None else job.error.message,
        outcomes=_outcomes(client, job),
    )
    metrics = client.metrics(job.id)
    record = record.model_copy(
        update={"curve": curve(metrics.steps, metrics.series), **summary(metrics.steps, metrics.series)}
    )
    if job.status != "succeeded":
        return record
    attempts = client.attempts(job.id).data
    host = attempts[-1].host if attempts else None
    return record.model_copy(update={"report": client.report(job.id).model_dump(mode="json"), "host": host})


def _job_of(client: Client, cell: Cell, ledger: Ledger) -> Job:
    """The job that stands for a cell. Submitting carries a key of the cell, so that a submission that was not noted
    down before a crash is found again. Whose record was removed is wanted anew, under a key of its own.
    """
    known = ledger.jobs.get(cell.key)
    removed = known in ledger.kept
    if known is not None and not removed:
        try:
            return client.job(known)
        except ApiError as error:
            if error.status != 404:
                raise
            ledger.set_job(cell, None)  # of a service that is gone, or deleted
    job = client.submit(cell.body, idempotency_key=f"{cell.key}-after-{known}" if removed else cell.key)
    ledger.set_job(cell, job.id)
    return job


def _outcomes(client: Client, job: Job) -> Outcomes | None:
    """None where the run ended before it was examined."""
    try:
        found = client.evaluation(job.id)
    except ApiError as error:
        if error.status != 404:
            raise
        return None
    after = found.after
    return Outcomes(
        problems=found.problems,
        before=found.before.correct,
        after=None if after is None else after.correct,
        teacher=found.teacher,
        length=None if after is None else after.length,
        truncated=None if after is None else after.truncated,
        samples_solved=None if after is None else after.samples_solved,
        samples_solved_before=found.before.samples_solved,
    )


def _fraction(cell: Cell, job: Job) -> float:
    """How much of a run is done: the larger of the shares of its steps and of its tokens."""
    progress = job.progress
    if not progress.step or not progress.total:
        return 0.0
    shares = [progress.step / progress.total]
    until = cell.resolved.schedule.until
    if until is not None:
        name, limit = until.limit
        spent = {"student_tokens": progress.student_tokens, "teacher_tokens": progress.teacher_tokens}.get(name)
        shares.append((spent or 0) / limit)
    return min(1.0, max(shares))


def _outcome(record: Record, finished: int, cells: int) -> str:
    accuracy = (record.report or {}).get("accuracy", {}).get("after")
    told = record.status if accuracy is None else f"{record.status}, {100 * accuracy:.1f} %"
    return f"{finished}/{cells} {record.label} ({record.job}): {told}{f', {record.error}' if record.error else ''}"
