"""Runs: the table, the status badge, progress and budgets in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pandas as pd

from api.schemas import Attempt, Event, Job
from dashboard.shaping.text import age, compact, duration, percent, seconds_since

Color = Literal["red", "orange", "green", "blue", "violet", "gray"]
_BADGES: dict[str, tuple[Color, str]] = {
    "queued": ("gray", ":material/schedule:"),
    "preparing": ("violet", ":material/hourglass_top:"),
    "running": ("blue", ":material/play_arrow:"),
    "pausing": ("orange", ":material/pause:"),
    "paused": ("orange", ":material/pause:"),
    "finalizing": ("violet", ":material/inventory_2:"),
    "cancelling": ("orange", ":material/stop:"),
    "succeeded": ("green", ":material/check:"),
    "failed": ("red", ":material/error:"),
    "cancelled": ("gray", ":material/block:"),
}

_ENDINGS = {"succeeded": "Did all", "failed": "Failed after", "cancelled": "Stopped after"}


def badge(status: str) -> tuple[Color, str]:
    """Colour and icon of a status; a status of a newer server is grey."""
    return _BADGES.get(status, ("gray", ":material/help:"))


def fraction(job: Job) -> float:
    """Share of the steps that are done, 0 to 1."""
    if job.status == "succeeded":
        return 1.0
    return min(1.0, (job.progress.step or 0) / job.progress.total) if job.progress.total else 0.0


@dataclass(frozen=True)
class Trend:
    """How a run has gone, by its metrics: accuracies so far, estimated operations, seconds of training."""

    accuracies: tuple[float, ...] = ()
    flops: float | None = None
    training_s: float | None = None


def revision(job: Job) -> str:
    """Another one whenever the run has moved."""
    return f"{job.status} {job.progress.step}"


def progress_text(job: Job, training_s: float | None = None) -> str:
    """``Step 12 of 150 · 34 s left``; in words before the first step and after the last."""
    if job.status == "queued":
        return "Waiting for a free worker"
    if job.status == "paused":
        return f"Paused after {job.progress.step or 0} steps"
    if job.terminal:
        took = "" if training_s is None else f" in {duration(training_s)} of training"
        return f"{_ENDINGS[job.status]} {job.progress.step or 0} steps{took}"
    parts = [f"Step {job.progress.step or 0} of {job.progress.total}"] if job.progress.total else []
    if job.status == "running" and job.progress.eta_s is not None:
        parts.append(f"{duration(job.progress.eta_s)} left")
    if job.phase and job.phase not in ("training", job.status):
        parts.append(job.phase)
    return " · ".join(parts) or job.status.capitalize()


def run_time(job: Job, now: datetime | None = None) -> float | None:
    """Seconds since the first start, up to the end if it is over, pauses and all; None before the start."""
    if job.started_at is None:
        return None
    return seconds_since(job.started_at, job.finished_at or now)


def accuracy_now(job: Job) -> float | None:
    """The newest accuracy that was measured."""
    return next((a for a in (job.accuracy.after, job.accuracy.latest, job.accuracy.before) if a is not None), None)


def accuracy_text(job: Job) -> str:
    """``24 % → 92 % of 100 %``: before, now, teacher; a dash before the first evaluation."""
    if accuracy_now(job) is None:
        return "–"
    ceiling = f" of {percent(job.accuracy.teacher, 0)}" if job.accuracy.teacher is not None else ""
    return f"{percent(job.accuracy.before, 0)} → {percent(accuracy_now(job), 0)}{ceiling}"


def tokens_text(job: Job) -> str:
    """``12.3 k / 12.3 k``: written by the student, scored by the teacher; a dash before the first step."""
    done = job.progress
    return "–" if done.student_tokens is None else f"{compact(done.student_tokens)} / {compact(done.teacher_tokens)}"


def short_id(job_id: str) -> str:
    """The tail of an id: ids sort by time, so the end tells them apart."""
    return job_id[-6:]


def run_label(job: Job) -> str:
    """For the run picker; plain text."""
    return f"{job.name} · {job.status} · {short_id(job.id)}"


def matching(jobs: Sequence[Job], *, statuses: Sequence[str] = (), text: str = "") -> list[Job]:
    """Jobs with one of the statuses (any when empty) that contain every word of the text."""
    words = text.lower().split()

    def fits(job: Job) -> bool:
        haystack = " ".join(filter(None, (job.name, job.id, job.recipe, job.worker, job.status))).lower()
        return (not statuses or job.status in statuses) and all(word in haystack for word in words)

    return [job for job in jobs if fits(job)]


def gap(job: Job) -> float | None:
    """Share of the gap to the teacher that is closed by now."""
    before, now, teacher = job.accuracy.before, accuracy_now(job), job.accuracy.teacher
    if job.accuracy.gap_recovered is not None:
        return job.accuracy.gap_recovered
    if before is None or now is None or teacher is None or teacher == before:
        return None
    return (now - before) / (teacher - before)


def table(jobs: Sequence[Job], trends: Mapping[str, Trend], now: datetime) -> pd.DataFrame:
    """One row per job, newest first as the API lists them."""
    gone = [trends.get(job.id, Trend()) for job in jobs]
    return pd.DataFrame(
        {
            "Run": [job.name for job in jobs],
            "Status": [[job.status] for job in jobs],
            "Progress": [100 * fraction(job) for job in jobs],
            "Accuracy": [accuracy_text(job) for job in jobs],
            "Trend": [list(trend.accuracies) for trend in gone],
            "Gap closed": [percent(gap(job), 0) for job in jobs],
            "Tokens": [tokens_text(job) for job in jobs],
            "Compute": [compact(trend.flops, "FLOP") for trend in gone],
            "Recipe": [job.recipe for job in jobs],
            "Worker": [job.worker or "–" for job in jobs],
            "Age": [age(seconds_since(job.created_at, now)) for job in jobs],
            "Now": [progress_text(job, trend.training_s) for job, trend in zip(jobs, gone, strict=True)],
        }
    )


def status_options() -> tuple[list[str], list[str]]:
    """Every status and its colour, in the order of a job's life."""
    return list(_BADGES), [color for color, _ in _BADGES.values()]


@dataclass(frozen=True)
class Figure:
    """One headline number."""

    label: str
    value: str
    help: str
    delta: str | None = None


def headline(job: Job) -> list[Figure]:
    """Accuracy before, now and the teacher's; what of the gap is closed."""
    before, now, teacher = job.accuracy.before, accuracy_now(job), job.accuracy.teacher
    gained = None if before is None or now is None else f"{100 * (now - before):+.1f} points"
    return [
        Figure("Student before", percent(before), "Exact answers on held-out problems before the first step."),
        Figure(
            "Student now" if job.accuracy.after is None else "Student after",
            percent(now),
            "Exact answers on the same problems at the newest evaluation.",
            gained,
        ),
        Figure("Teacher", percent(teacher), "The teacher on the same problems: the ceiling."),
        Figure("Gap closed", percent(gap(job), 0), "(now − before) / (teacher − before)."),
    ]


def budget(job: Job, spent: Trend, now: datetime | None = None) -> list[Figure]:
    """What the run has spent."""
    done = job.progress
    return [
        Figure("Student tokens", compact(done.student_tokens), "Tokens written by the student."),
        Figure("Teacher tokens", compact(done.teacher_tokens), "Tokens scored by the teacher."),
        Figure("Tokens per second", compact(done.tokens_per_s), "Student tokens per second, whole step."),
        Figure("Compute", compact(spent.flops, "FLOP"), "Estimated floating point operations so far."),
        Figure(
            "Training time",
            duration(spent.training_s),
            "Of the steps themselves: rollouts, teacher, update, telemetry. Without loading, evaluations, checkpoints, "
            "pauses and waiting for a worker.",
        ),
        Figure("Since its start", duration(run_time(job, now)), "By the clock, with pauses and everything else."),
    ]


def event_table(events: Sequence[Event]) -> pd.DataFrame:
    """Newest first."""
    newest = list(reversed(events))
    return pd.DataFrame(
        {
            "time": [event.created_at for event in newest],
            "level": [event.level for event in newest],
            "attempt": ["–" if event.attempt is None else str(event.attempt) for event in newest],
            "event": [event.type.replace("_", " ") for event in newest],
            "message": [event.message for event in newest],
        }
    )


def attempt_table(attempts: Sequence[Attempt]) -> pd.DataFrame:
    """One row per start, and how it ended."""
    return pd.DataFrame(
        {
            "attempt": [one.attempt for one in attempts],
            "worker": [one.worker for one in attempts],
            "process": [f"{one.host or '?'} · {one.pid or '?'}" for one in attempts],
            "duration": [
                duration((one.finished_at - one.started_at).total_seconds()) if one.finished_at else "running"
                for one in attempts
            ],
            "end": [attempt_ending(one) for one in attempts],
        }
    )


def attempt_ending(attempt: Attempt) -> str:
    """How a start ended, in words; a dash while it runs."""
    if attempt.reason:
        return attempt.reason
    if attempt.signal is not None:
        return f"killed by signal {attempt.signal}"
    return "–" if attempt.exit_code is None else f"exit code {attempt.exit_code}"
