"""What a run recorded: scalars, token records, the routing heatmap, its report."""

from __future__ import annotations

from typing import Annotated, Any

import pyarrow as pa
import redis
import structlog
from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from api import heatmaps, tokens, views
from api import schemas as s
from api.problems import not_found, responses
from api.routers.parameters import MAX_INT, JobDep, Step
from api.services import Services, ServicesDep
from opd_core.runs import records
from opd_core.runs.rows import Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["telemetry"])
log = structlog.get_logger()


@router.get("/metrics", response_model=s.Metrics, summary="Read scalars by step", responses=responses(404, 422))
def read_metrics(
    job: JobDep,
    services: ServicesDep,
    keys: Annotated[
        str | None, Query(max_length=1000, description="Comma-separated names; all by default.", examples=["loss,kl"])
    ] = None,
    from_step: Annotated[int, Query(ge=0, le=MAX_INT)] = 0,
    max_points: Annotated[
        int | None,
        Query(ge=1, le=100_000, description="Thin to every k-th step; the last and evaluated steps always stay."),
    ] = None,
) -> s.Metrics:
    """One column per name, null where a step has no value (``accuracy`` exists on evaluated steps only)."""
    wanted = [key.strip() for key in keys.split(",") if key.strip()] if keys else None
    return views.metrics(services.store.get_metrics(job.id, from_step), wanted, max_points)


@router.get(
    "/steps", response_model=s.Page[s.StepSummary], summary="List steps with token records", responses=responses(404)
)
def list_steps(job: JobDep, services: ServicesDep) -> s.Page[s.StepSummary]:
    """All of them, in order; the newest may still be live only."""
    found = records.recorded_steps(services.files(job.id)) | _live_steps(job, services)
    data = [s.StepSummary(step=step, sequences=sequences) for step, sequences in sorted(found.items())]
    return s.Page[s.StepSummary](data=data)


@router.get(
    "/steps/{step}/sequences",
    response_model=s.SequenceList,
    summary="List the recorded sequences of a step",
    responses=responses(404, 422),
)
def list_sequences(job: JobDep, services: ServicesDep, step: Step) -> s.SequenceList:
    """Prompt, completion and outcome of each, without the tokens."""
    rows = _rows(job, services, step)
    return s.SequenceList(step=step, data=[s.SequenceSummary.model_validate(tokens.summary(row)) for row in rows])


@router.get(
    "/steps/{step}/sequences/{n}",
    response_model=s.Sequence,
    summary="Read a recorded sequence, token by token",
    responses=responses(404, 422),
)
def read_sequence(
    job: JobDep, services: ServicesDep, step: Step, n: Annotated[int, Path(ge=0, le=MAX_INT)]
) -> s.Sequence:
    """Both models' log-probabilities and likeliest tokens, the update's plan, and the probed change."""
    for row in _rows(job, services, step):
        if row["n"] == n:
            return tokens.sequence(row, services.vocabulary(job.id))
    raise not_found(f"step {step} has no recorded sequence {n}", param="n")


@router.get(
    "/heatmaps/routing",
    response_model=s.Heatmap,
    summary="See where the probability of suppressed tokens went",
    responses=responses(404, 422),
)
def read_routing(
    job: JobDep,
    services: ServicesDep,
    from_step: Annotated[int, Query(ge=0, le=MAX_INT)] = 0,
    to_step: Annotated[int, Query(ge=0, le=MAX_INT, description="Inclusive.")] = MAX_INT,
    rows: Annotated[int, Query(ge=1, le=64, description="Suppressed tokens, most frequent first.")] = 24,
    columns: Annotated[int, Query(ge=1, le=64, description="Destinations, largest change first.")] = 32,
) -> s.Heatmap:
    """Mean predicted and realised change of probability over the probed states of a range of steps.

    For a method with vocabulary routing also what its plan sent where, over all recorded states.
    """
    at_rest = records.read_table(services.files(job.id), from_step, to_step, heatmaps.ROUTING_COLUMNS)
    found = set(at_rest["step"].to_pylist())
    fresh = [step for step in _live_steps(job, services) if from_step <= step <= to_step and step not in found]
    live = records.to_table(row for step in fresh for row in _live_rows(job, services, step))
    steps = found.union(fresh)
    return heatmaps.routing(
        pa.concat_tables([at_rest, live.select(at_rest.column_names)]),
        services.vocabulary(job.id),
        min(steps, default=from_step),
        max(steps, default=from_step),
        rows,
        columns,
    )


@router.get("/report", response_model=s.Report, summary="Read a finished run's report", responses=responses(404))
def read_report(job: JobDep, services: ServicesDep) -> JSONResponse:
    """Accuracy before and after, budgets spent, versions, warnings and the spec as trained."""
    report: dict[str, Any] | None = services.store.get_report(job.id)
    if report is None:
        raise not_found(f"the job is {job.status} and has no report{'' if job.finished_at else ' yet'}")
    return JSONResponse(report)


def _rows(job: Job, services: Services, step: int) -> list[records.Row]:
    """Token records of a step, newest attempt: from the live stream while they are there, else from Parquet."""
    rows = _live_rows(job, services, step) or records.read_step(services.files(job.id), step)
    if not rows:
        raise not_found(f"step {step} has no token records", param="step")
    return rows


def _live_rows(job: Job, services: Services, step: int) -> list[records.Row]:
    if services.live is None:
        return []
    try:
        return services.live.read_step(job.id, step, job.attempt)
    except redis.RedisError as error:
        log.warning("live_records_unreachable", error=type(error).__name__)
        return []


def _live_steps(job: Job, services: Services) -> dict[int, int]:
    if services.live is None:
        return {}
    try:
        return services.live.steps(job.id)
    except redis.RedisError as error:
        log.warning("live_records_unreachable", error=type(error).__name__)
        return {}
