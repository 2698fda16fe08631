"""A job, what became of it, and its audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import Json, Schema
from api.schemas.estimate import Estimate
from opd_core.runs.states import TERMINAL
from opd_core.runs.states import Status as Status
from opd_core.spec.job import Metadata, Name, Priority


class Progress(Schema):
    """How far a run is. Nulls until the first step."""

    step: int | None = None
    total: int | None = None
    student_tokens: int | None = None
    teacher_tokens: int | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None
    loss: float | None = None


class Accuracy(Schema):
    """Share of held-out problems solved, greedy; null where not (yet) measured."""

    before: float | None = None
    latest: float | None = None
    after: float | None = None
    teacher: float | None = None
    gap_recovered: float | None = Field(None, description="(after - before) / (teacher - before)")


class JobError(Schema):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None
    category: Literal["user", "system", "resource"] = Field(
        description="user: the spec's; resource: memory or disk space ran out; system: anything else."
    )
    retryable: bool = False


class Job(Schema):
    """A job. ``spec`` as submitted, ``resolved_spec`` with every default and the recipe filled in."""

    object: Literal["job"] = "job"
    id: str
    name: str
    status: Status
    phase: str = Field(description="What the run is doing, in words for people.")
    desired_state: str = Field(description="What the user asked for: run, pause or cancelled.")
    attempt: int = Field(description="How often the job was started; rises after a lost worker.")
    queue: str
    priority: int = Field(0, description="Of the jobs that wait on a queue, the highest starts first.")
    recipe: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress = Progress()
    accuracy: Accuracy = Accuracy()
    worker: str | None = None
    created_by: str | None = Field(None, description="Name of the token that submitted it.")
    save_wanted: bool = Field(False, description="A checkpoint was asked for and is not saved yet.")
    latest_checkpoint: str | None = Field(None, description="Id of the newest checkpoint.")
    error: JobError | None = None
    warnings: list[str] = []
    metadata: dict[str, str] = {}
    spec: Json
    resolved_spec: Json

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self.status in TERMINAL


class JobUpdate(BaseModel):
    """What may be changed of a job; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    metadata: Metadata | None = Field(None, description="Replaces all of it.")
    priority: Priority | None = Field(None, description="Only while the job is queued or paused.")


class Validation(Schema):
    """Answer to ``validate_only``: the spec as it would be trained, what to know about it and what it may take."""

    object: Literal["validation"] = "validation"
    resolved_spec: Json
    warnings: list[str] = []
    estimate: Estimate | None = None


class Event(Schema):
    """A line of a job's audit log; ``seq`` counts 1, 2, 3... without gaps."""

    object: Literal["event"] = "event"
    id: str
    seq: int
    created_at: datetime
    level: Literal["info", "warning", "error"]
    type: str
    message: str
    data: Json = {}
    attempt: int | None = None


class Attempt(Schema):
    """One start of a job and how it ended."""

    object: Literal["attempt"] = "attempt"
    job_id: str
    attempt: int
    worker: str
    host: str | None = None
    pid: int | None = None
    started_at: datetime
    finished_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None


class Report(Schema):
    """A finished run's report; see the run's ``report.md`` for the readable form."""

    model_config = ConfigDict(extra="allow")

    accuracy: Json = {}
    budget: Json = {}
    spec: Json = {}
    seed: int | None = None
    versions: Json = {}
    warnings: list[str] = []
    checklist: Any = None
