"""What a run recorded of its tokens: sequences one by one, and heatmaps over many."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query

from api import quantities, tokens
from api import schemas as s
from api.heatmaps import gates, occurrences, profile, routing
from api.problems import ProblemError, responses
from api.recorded import Records
from api.routers.parameters import MAX_INT, JobDep, Step
from api.services import ServicesDep

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["telemetry"])


def _records(job: JobDep, services: ServicesDep) -> Records:
    return Records(job, services)


RecordsDep = Annotated[Records, Depends(_records)]
FromStep = Annotated[int, Query(ge=0, le=MAX_INT)]
ToStep = Annotated[int, Query(ge=0, le=MAX_INT, description="Inclusive.")]
Rows = Annotated[int, Query(ge=1, le=64, description="Position bins at most.")]
Columns = Annotated[int, Query(ge=1, le=128, description="Step bins at most.")]
Quantity = Literal[
    "log_ratio", "return", "value", "advantage", "coefficient", "kl", "entropy_student", "entropy_teacher"
]


@router.get(
    "/steps", response_model=s.Page[s.StepSummary], summary="List steps with token records", responses=responses(404)
)
def list_steps(records: RecordsDep) -> s.Page[s.StepSummary]:
    """All of them, in order; the newest may still be live only."""
    found = records.steps().items()
    data = [s.StepSummary(step=step, sequences=of.sequences, tokens=of.tokens) for step, of in found]
    return s.Page[s.StepSummary](data=data)


@router.get(
    "/steps/{step}/sequences",
    response_model=s.SequenceList,
    summary="List the recorded sequences of a step",
    responses=responses(404, 422),
)
def list_sequences(records: RecordsDep, step: Step) -> s.SequenceList:
    """Prompt, completion and outcome of each, without the tokens."""
    rows = records.step(step, tokens.SUMMARY_COLUMNS).to_pylist()
    return s.SequenceList(step=step, data=[s.SequenceSummary.model_validate(tokens.summary(row)) for row in rows])


@router.get(
    "/steps/{step}/sequences/{n}",
    response_model=s.Sequence,
    summary="Read a recorded sequence, token by token",
    responses=responses(404, 422),
)
def read_sequence(
    job: JobDep, services: ServicesDep, records: RecordsDep, step: Step, n: Annotated[int, Path(ge=0, le=MAX_INT)]
) -> s.Sequence:
    """Both models' log-probabilities and likeliest tokens, the update's plan, and the probed change."""
    return tokens.sequence(records.sequence(step, n), services.vocabulary(job.id))


@router.get(
    "/steps/{step}/quantities",
    response_model=s.QuantityList,
    summary="See how large the numbers of a step's tokens are",
    responses=responses(404, 422),
)
def list_quantities(records: RecordsDep, step: Step) -> s.QuantityList:
    """Of each number its range, and the 98 % quantile of its sizes: one scale for all sequences of the step."""
    return s.QuantityList(step=step, data=quantities.quantities(records.step(step, quantities.COLUMNS)))


@router.get(
    "/heatmaps/returns",
    response_model=s.Profile,
    summary="See a quantity by position and step",
    responses=responses(404, 422),
)
def read_returns(
    records: RecordsDep,
    field: Annotated[Quantity, Query(description="Which quantity.")] = "log_ratio",
    from_step: FromStep = 0,
    to_step: ToStep = MAX_INT,
    rows: Rows = 48,
    columns: Columns = 64,
) -> s.Profile:
    """Means over every token of each recorded step, not only the recorded sequences; quantiles and a histogram."""
    return _profile(records, field, from_step, to_step, rows, columns)


@router.get(
    "/heatmaps/gates",
    response_model=s.Gates,
    summary="See what gates let through",
    responses=responses(404, 422),
)
def read_gates(
    job: JobDep,
    services: ServicesDep,
    records: RecordsDep,
    gate: Annotated[str | None, Query(max_length=64, description="Name of a gate; all together by default.")] = None,
    from_step: FromStep = 0,
    to_step: ToStep = MAX_INT,
    rows: Rows = 48,
    columns: Columns = 64,
    tokens: Annotated[int, Query(ge=1, le=100, description="Silenced tokens, most frequent first.")] = 20,
) -> s.Gates:
    """By position and step over every token; which tokens were silenced, and how gates overlap, over recorded ones."""
    known = [name.removeprefix("gate:") for name in records.profile_fields() if name.startswith("gate:")]
    if gate is not None and gate not in known:
        detail = f"gate: this run has no gate {gate!r}; it has {', '.join(known) or 'none'}"
        raise ProblemError(422, "invalid_request", detail, param="gate")
    field = "gate" if gate is None else f"gate:{gate}"
    found = records.many(from_step, to_step, gates.COLUMNS)
    return s.Gates(
        profile=_profile(records, field, from_step, to_step, rows, columns),
        summary=gates.summary(found.table, services.vocabulary(job.id), gate, tokens),
        steps_read=found.read,
        steps_recorded=found.recorded,
    )


@router.get(
    "/heatmaps/routing",
    response_model=s.Heatmap,
    summary="See where the probability of suppressed tokens went",
    responses=responses(404, 422),
)
def read_routing(
    job: JobDep,
    services: ServicesDep,
    records: RecordsDep,
    from_step: FromStep = 0,
    to_step: ToStep = MAX_INT,
    rows: Annotated[int, Query(ge=1, le=64, description="Suppressed tokens, most frequent first.")] = 24,
    columns: Annotated[int, Query(ge=1, le=64, description="Destinations, largest change first.")] = 32,
) -> s.Heatmap:
    """Mean predicted and realised change of probability over the probed states of a range of steps.

    For a method with vocabulary routing also what its plan sent where, over all recorded states.
    """
    found = records.many(from_step, to_step, routing.COLUMNS)
    return routing.routing(found, services.vocabulary(job.id), rows, columns)


@router.get(
    "/tokens/{token}/suppressed",
    response_model=s.Occurrences,
    summary="Find where a token was suppressed",
    responses=responses(404, 422),
)
def read_suppressed(
    records: RecordsDep,
    token: Annotated[int, Path(ge=0, le=MAX_INT, description="Id in the vocabulary.")],
    from_step: FromStep = 0,
    to_step: ToStep = MAX_INT,
    limit: Annotated[int, Query(ge=1, le=100, description="Places, most negative log-ratio first.")] = 20,
) -> s.Occurrences:
    """From a row of the routing heatmap to the sequences behind it."""
    return occurrences.occurrences(records.many(from_step, to_step, occurrences.COLUMNS), token, limit)


def _profile(records: Records, field: str, first: int, last: int, rows: int, columns: int) -> s.Profile:
    found = profile.matrix(records.profiles(first, last, field), rows, columns)
    return found.model_copy(update={"field": field, "fields": records.profile_fields()})
