"""What the trainer may say on its standard output: one JSON object per line, one class per ``type``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from opd_core.runs import profiles, records

Level = Literal["info", "warning", "error"]


class _Said(BaseModel):
    # Extra fields are ignored: a newer trainer may say more than this supervisor understands.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Phase(_Said):
    """What it is doing, in human words. "training" and "finalizing" also move the job's status."""

    type: Literal["phase"]
    phase: str


class Event(_Said):
    type: Literal["event"]
    level: Level = "info"
    name: str
    message: str
    data: dict[str, Any] | None = None


class Progress(_Said):
    type: Literal["progress"]
    step: int
    total: int
    student_tokens: int | None = None
    teacher_tokens: int | None = None
    tokens_per_s: FiniteFloat | None = None
    eta_s: FiniteFloat | None = None
    loss: FiniteFloat | None = None
    accuracy: FiniteFloat | None = None


class Metrics(_Said):
    type: Literal["metrics"]
    step: int
    values: dict[str, FiniteFloat]


class Records(_Said):
    """Token records of one step, as ``opd_core.runs.records.encode`` made them."""

    type: Literal["records"]
    step: int
    payload: Base64Bytes
    profile: Base64Bytes | None = None
    """How the numbers of all the step's tokens were spread, as ``opd_core.runs.profiles.encode`` made it."""

    @field_validator("payload")
    @classmethod
    def _is_readable(cls, value: bytes) -> bytes:
        records.count(value)  # base64 alone lets anything through
        return value

    @field_validator("profile")
    @classmethod
    def _is_a_profile(cls, value: bytes | None) -> bytes | None:
        if value is not None:
            profiles.decode(value)
        return value


class CheckpointFile(_Said):
    name: str
    size: int
    sha256: str


class Checkpoint(_Said):
    type: Literal["checkpoint"]
    step: int
    name: str
    kind: Literal["training", "export"]
    size_bytes: int
    files: list[CheckpointFile]


class CheckpointRemoved(_Said):
    """The trainer keeps the last few checkpoints and deletes the others."""

    type: Literal["checkpoint_removed"]
    name: str


class Accuracy(_Said):
    """Whatever of it is known by now."""

    type: Literal["accuracy"]
    before: FiniteFloat | None = None
    after: FiniteFloat | None = None
    teacher: FiniteFloat | None = None
    gap_recovered: FiniteFloat | None = None


class Warned(_Said):
    type: Literal["warning"]
    message: str


class Result(_Said):
    """The last line of a success."""

    type: Literal["result"]
    report: dict[str, Any]


class Error(_Said):
    """The ``error`` object of a job."""

    code: str
    message: str
    param: str | None = None
    category: Literal["user", "system", "resource"]
    retryable: bool = False


class Failed(_Said):
    type: Literal["error"]
    error: Error


Message = Annotated[
    Phase | Event | Progress | Metrics | Records | Checkpoint | CheckpointRemoved | Accuracy | Warned | Result | Failed,
    Field(discriminator="type"),
]
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


class MalformedLine(ValueError):
    """A line that is not a message: says what is wrong with it."""


def parse(line: bytes) -> Message:
    """The message in one line. Raises MalformedLine."""
    try:
        return _MESSAGE.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        shown = line[:120].decode(errors="replace").strip()
        raise MalformedLine(f"{where + ': ' if where else ''}{first['msg']}; the line begins {shown!r}") from error
