"""The shapes of the HTTP interface, shared by the service and its client."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from opd_core.runs.states import TERMINAL as TERMINAL
from opd_core.runs.states import Status as Status

Json = dict[str, Any]
Item = TypeVar("Item")


class Schema(BaseModel):
    """Readers ignore fields that a newer service adds."""

    model_config = ConfigDict(extra="ignore")


class Page(Schema, Generic[Item]):
    """A list. Pass ``next_cursor`` as ``after`` for the next page."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False
    next_cursor: str | None = None


class Problem(Schema):
    """An error, RFC 9457 ``application/problem+json``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:opd:problem:invalid_spec",
                    "title": "The request is not valid",
                    "status": 422,
                    "detail": "optimizer.lr: Input should be greater than 0 (got -1.0)",
                    "param": "optimizer.lr",
                    "request_id": "req_01m837yra7fgfac0fh2b4qwbpp",
                }
            ]
        }
    )

    type: str = Field(description="urn:opd:problem:CODE; the code is stable.")
    title: str = Field(description="The kind of problem, the same for every instance.")
    status: int
    detail: str = Field(description="One sentence about this instance: what, where, what is allowed.")
    param: str | None = Field(None, description="The field, parameter or header it is about.")
    allowed: list[str] | None = Field(None, description="For an invalid transition: the possible ones.")
    request_id: str | None = None


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
    category: Literal["user", "system"]
    retryable: bool = False


class Job(Schema):
    """A job. ``spec`` as submitted, ``resolved_spec`` with every default and the recipe filled in."""

    object: Literal["job"] = "job"
    id: str
    name: str
    status: Status
    phase: str = Field(description="What the run is doing, in words for people.")
    desired_state: str = Field(description="What the user asked for: run or cancelled.")
    attempt: int = Field(description="How often the job was started; rises after a lost worker.")
    queue: str
    recipe: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress = Progress()
    accuracy: Accuracy = Accuracy()
    worker: str | None = None
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


class Validation(Schema):
    """Answer to ``validate_only``: the spec as it would be trained, and what to know about it."""

    object: Literal["validation"] = "validation"
    resolved_spec: Json
    warnings: list[str] = []


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


class Metrics(Schema):
    """Scalars by step: every series has one value (or null) per entry of ``steps``."""

    object: Literal["metrics"] = "metrics"
    steps: list[int]
    series: dict[str, list[float | None]]


class StepSummary(Schema):
    """A step with recorded sequences."""

    step: int
    sequences: int


class SequenceSummary(Schema):
    """A recorded sequence without its tokens."""

    n: int
    problem: int
    prompt: str
    completion: str
    answer: str | None = None
    correct: bool | None = None
    truncated: bool
    length: int
    log_ratio_mean: float | None = None
    log_ratio_min: float | None = None


class SequenceList(Page[SequenceSummary]):
    """The recorded sequences of a step."""

    step: int


class StudentChoice(Schema):
    """One of the student's likeliest tokens, with both models' log-probabilities."""

    id: int
    text: str
    logp: float | None
    teacher_logp: float | None


class TeacherChoice(Schema):
    """One of the teacher's likeliest tokens, with both models' log-probabilities."""

    id: int
    text: str
    logp: float | None
    student_logp: float | None


class RouteEntry(Schema):
    """A token that the plan moves probability to (or from)."""

    id: int
    text: str
    weight: float | None


class ProbeEntry(Schema):
    """A token's change of probability: as the plan predicted, as the network did."""

    id: int
    text: str
    predicted: float | None
    realised: float | None


class Token(Schema):
    """All that is recorded about one completion token. Natural logarithms."""

    model_config = ConfigDict(populate_by_name=True)

    pos: int
    id: int
    text: str
    logp_student: float | None
    logp_teacher: float | None
    log_ratio: float | None
    return_: float | None = Field(alias="return", description="Sum of the log-ratios from here to the end.")
    value: float | None = Field(None, description="What the critic expected of the return; null without a critic.")
    advantage: float | None = Field(description="The credit that was used; 0 where the method has none.")
    gate: float | None = Field(description="How loudly the token speaks: the product of all gates.")
    gates: dict[str, float | None] = Field({}, description="Each gate by itself.")
    coefficient: float | None = Field(description="Weight of log pi(token) in the update.")
    components: dict[str, float | None] = Field({}, description="What the coefficient is the sum of.")
    entropy_student: float | None
    entropy_teacher: float | None
    kl: float | None
    student_top: list[StudentChoice]
    teacher_top: list[TeacherChoice]
    route: list[RouteEntry]
    probe: list[ProbeEntry] | None = Field(description="null where the state was not probed.")


class Sequence(SequenceSummary):
    """A recorded sequence, token by token."""

    object: Literal["sequence"] = "sequence"
    step: int
    tokens: list[Token]


class HeatmapRow(Schema):
    """A suppressed sampled token and how many probed states show it."""

    id: int
    text: str
    count: int


class HeatmapColumn(Schema):
    """A destination token."""

    id: int
    text: str


class RouteBalance(Schema):
    """What the plan takes from suppressed tokens (negative log-ratio) and what it sends on, in nats per token."""

    suppressed: int = Field(description="Recorded tokens with a negative log-ratio in the range.")
    released: float = Field(description="Mean size of their negative coefficients (0 where it is not negative).")
    routed: float = Field(description="Mean weight that is sent to named destinations.")
    empty_rate: float = Field(description="Share of them without any destination.")


class Heatmap(Schema):
    """Mean change of probability per probed state: ``predicted[row][column]`` and ``realised[row][column]``.

    ``routed[row][column]`` is the mean weight that the plan sends from row to column, over all recorded suppressed
    tokens; it and ``balance`` are null where the plan sends nothing to named destinations.
    """

    object: Literal["heatmap"] = "heatmap"
    kind: Literal["routing"] = "routing"
    from_step: int
    to_step: int
    states: int = Field(description="Probed states with a negative log-ratio in the range.")
    rows: list[HeatmapRow]
    columns: list[HeatmapColumn]
    predicted: list[list[float]]
    realised: list[list[float]]
    routed: list[list[float]] | None = None
    balance: RouteBalance | None = None


class CheckpointFile(Schema):
    """A file of a checkpoint; download it by ``id``."""

    id: str
    name: str
    size: int
    sha256: str


class Checkpoint(Schema):
    """A complete checkpoint: ``training`` can be resumed, ``export`` is a Hugging Face directory."""

    object: Literal["checkpoint"] = "checkpoint"
    id: str
    name: str
    step: int
    attempt: int
    kind: Literal["training", "export"]
    size_bytes: int
    created_at: datetime
    files: list[CheckpointFile]


class Attempt(Schema):
    """One start of a job and how it ended."""

    object: Literal["attempt"] = "attempt"
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


class Recipe(Schema):
    """A published method: a named starting point for ``method``."""

    object: Literal["recipe"] = "recipe"
    name: str
    title: str
    summary: str
    formula: str
    citation: str
    route: Literal["direct", "log_ratio"]
    variable: str
    grade: Literal["published", "reported", "preliminary", "control", "hypothesis"]
    evidence: str
    differs: str = ""
    fixed_point: Literal["teacher", "shifted"]
    fixed_point_reason: str | None = None
    teacher: str
    needs: list[str] = []
    cost: list[str] = []
    warnings: list[str] = []
    method: Json


class Worker(Schema):
    """A worker's last sign of life."""

    object: Literal["worker"] = "worker"
    name: str
    host: str
    pid: int
    queues: list[str]
    labels: Json = {}
    job_id: str | None = None
    alive: bool
    started_at: datetime
    seen_at: datetime


class Model(Schema):
    """Something a spec's ``student.model`` or ``teacher.model`` may name (hub ids come on top)."""

    object: Literal["model"] = "model"
    id: str = Field(description="Use this as student.model or teacher.model.")
    kind: Literal["demo", "directory"]


class Task(Schema):
    """A built-in task."""

    object: Literal["task"] = "task"
    name: str = Field(description="Use this as task.name.")
    summary: str


Check = Literal["ok", "unreachable", "not_configured"]


class Readiness(Schema):
    """Whether the service can do its work, and what is missing."""

    status: Literal["ready", "unready"]
    checks: Annotated[dict[str, Check], Field(description="database, broker, artifacts")]


class Liveness(Schema):
    """The process answers."""

    status: Literal["ok"] = "ok"
