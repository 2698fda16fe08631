"""A run in numbers: scalars by step, and its report."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from api import evaluation, views
from api import schemas as s
from api.problems import not_found, responses
from api.routers.parameters import MAX_INT, JobDep
from api.services import ServicesDep

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["telemetry"])


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


@router.get("/report", response_model=s.Report, summary="Read a finished run's report", responses=responses(404))
def read_report(job: JobDep, services: ServicesDep) -> JSONResponse:
    """Accuracy before and after, budgets spent, versions, warnings and the spec as trained."""
    report: dict[str, Any] | None = services.store.get_report(job.id)
    if report is None:
        raise not_found(f"the job is {job.status} and has no report{'' if job.finished_at else ' yet'}")
    return JSONResponse(report)


@router.get(
    "/evaluation",
    response_model=s.Evaluation,
    summary="Read right or wrong for each held-out problem",
    responses=responses(404),
)
def read_evaluation(job: JobDep, services: ServicesDep) -> s.Evaluation:
    """The student before and after, and the teacher. It is there once the run was examined before its first step."""
    found = evaluation.read_evaluation(services, job)
    if found is None:
        raise not_found(f"the job is {job.status} and has not been examined")
    return found
