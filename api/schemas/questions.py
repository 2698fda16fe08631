"""Questions about a run that a worker answers beside training: what if, and what would it do here."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from api.schemas.base import Json, Schema
from api.schemas.jobs import JobError
from api.schemas.telemetry import Sequence

MAX_SEQUENCES = 16
MAX_PROMPT = 16_384
MAX_NEW_TOKENS = 1024


class ReplanRequest(Schema):
    """Plan a recorded step again. Without ``recipe`` the changes are laid over the run's own method."""

    model_config = ConfigDict(extra="forbid")

    recipe: str | None = Field(None, max_length=64, examples=["cr-opd"])
    method: dict[str, Any] = Field({}, description="Changes to the method, as in a job spec.")
    sequences: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        max_length=MAX_SEQUENCES,
        description=f"Numbers of the recorded sequences to answer about; null = the first {MAX_SEQUENCES}.",
    )


class ProbeRequest(Schema):
    """Let the student complete a prompt, the teacher score it, and the run's method plan."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(
        min_length=1, max_length=MAX_PROMPT, examples=["Ann has 3 apples . Then she buys 4 . How many ?"]
    )
    max_new_tokens: int | None = Field(
        None, ge=1, le=MAX_NEW_TOKENS, description=f"null = as in the run, at most {MAX_NEW_TOKENS}."
    )
    temperature: float | None = Field(
        None, ge=0.0, le=10.0, description="null = as in the run; 0 = the likeliest token every time."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1)
    checkpoint: str | None = Field(
        None, max_length=128, description="Id or name of a training checkpoint; null = the newest, or the run's start."
    )


class Mark(Schema):
    """Whether a number of the plan is what the trainer would have computed; ``reasons`` if not."""

    exact: bool
    reasons: list[str]


class Force(Schema):
    """What both plans do to one token's logit at a state, and to first order to its probability (same step size)."""

    id: int
    text: str
    recorded: float | None
    replanned: float | None
    recorded_change: float | None
    replanned_change: float | None


class TokenDifference(Schema):
    """Re-planned minus recorded; null where one of them has no such number."""

    model_config = ConfigDict(populate_by_name=True)

    log_ratio: float | None
    return_: float | None = Field(alias="return")
    value: float | None
    advantage: float | None
    gate: float | None
    coefficient: float | None


class ReplannedSequence(Schema):
    """A sequence under both plans, token by token.

    ``replanned`` leaves out what does not depend on the plan: the models' favourites, and the probed change.
    ``forces`` lists, for each token, the sampled one first and then those that either plan pushes most.
    """

    recorded: Sequence
    replanned: Sequence
    difference: list[TokenDifference]
    forces: list[list[Force]]


class Replan(Schema):
    """The answer to a what-if question. Marks are by field: log_ratio, return, value, advantage, gate, gate:NAME,
    coefficient, route, force, change; of the recorded plan only force and change are made again."""

    object: Literal["replan"] = "replan"
    step: int
    recipe: str | None
    method: Json
    sequences: list[ReplannedSequence]
    marks: dict[str, Mark]
    recorded_marks: dict[str, Mark]


class Probe(Schema):
    """The answer to a probe: a sequence like a recorded one, of no step. ``checkpoint`` null = the run's start."""

    object: Literal["probe"] = "probe"
    checkpoint: str | None
    step: int
    sequence: Sequence
    marks: dict[str, Mark]
    notes: list[str]


class Question(Schema):
    """A question as it stands; ``result`` once it is answered, ``error`` if it failed."""

    object: Literal["question"] = "question"
    id: str
    job_id: str
    kind: Literal["replan", "probe"]
    status: Literal["waiting", "working", "answered", "failed"]
    phase: str
    request: Json
    created_at: datetime
    finished_at: datetime | None
    error: JobError | None
    result: Annotated[Replan | Probe, Field(discriminator="object")] | None = None

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.status in ("answered", "failed")
