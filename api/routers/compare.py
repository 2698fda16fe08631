"""Several runs side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api import comparison
from api import schemas as s
from api.evaluation import read_evaluation
from api.problems import ProblemError, not_found, responses
from api.recorded import Records
from api.routers.parameters import MAX_INT
from api.services import Services, ServicesDep
from opd_core.runs.ids import is_id
from opd_core.runs.rows import Job

router = APIRouter(prefix="/v1/compare", tags=["telemetry"])
MAX_RUNS = 8
_WINDOW = 40  # steps around the wanted one that are searched for a shared problem
_PLACE_COLUMNS = ("problem", "prompt", "correct")

Place = tuple[int, str]  # a problem's number and its text: another seed numbers a generated task's problems anew


def _jobs(
    services: ServicesDep,
    jobs: Annotated[str, Query(max_length=1000, description="2 to 8 job ids, comma-separated.")],
) -> list[Job]:
    ids = [part.strip() for part in jobs.split(",") if part.strip()]
    if not 2 <= len(ids) <= MAX_RUNS or len(set(ids)) < len(ids):
        twice = next((one for one in ids if ids.count(one) > 1), None)
        got = f"{twice!r} twice" if twice else f"{len(ids)}"
        detail = f"query parameter jobs: give 2 to {MAX_RUNS} different job ids, comma-separated (got {got})"
        raise ProblemError(422, "invalid_request", detail, param="jobs")
    return [_find(services, one) for one in ids]


def _find(services: Services, job_id: str) -> Job:
    found = services.store.get_job(job_id) if is_id(job_id) else None
    if found is None:
        raise not_found(f"query parameter jobs: there is no job {job_id!r}", param="jobs")
    return found


JobsDep = Annotated[list[Job], Depends(_jobs)]


@router.get("", response_model=s.Comparison, summary="Compare 2 to 8 runs", responses=responses(404, 422))
def compare_runs(
    jobs: JobsDep,
    services: ServicesDep,
    x: Annotated[s.Axis, Query(description="What the curves and the equal budget are measured in.")] = "step",
    keys: Annotated[
        str | None,
        Query(max_length=1000, description=f"Comma-separated series; by default {', '.join(comparison.KEYS)}."),
    ] = None,
    max_points: Annotated[int, Query(ge=1, le=100_000, description="Per run; evaluated steps always stay.")] = 400,
) -> s.Comparison:
    """Curves against one axis, a head-to-head with the seeds of one spec as one row, and what differs in the specs.

    ``wall_s`` counts the training itself: rollouts, teacher, update, telemetry; not loading, evaluations, checkpoints.
    """
    wanted = [key.strip() for key in keys.split(",") if key.strip()] if keys else comparison.KEYS
    rows = [(job, services.store.get_metrics(job.id)) for job in jobs]
    # A run is examined problem by problem at its two ends; of those that go on there is nothing to compare yet.
    ended = {job.id: read_evaluation(services, job) for job in jobs if job.status == "succeeded"}
    return comparison.compare(rows, x, wanted, max_points, ended)


@router.get(
    "/problems",
    response_model=s.Page[s.SharedProblem],
    summary="Find problems that two runs both recorded",
    responses=responses(404, 422),
)
def shared_problems(
    jobs: JobsDep,
    services: ServicesDep,
    step: Annotated[int, Query(ge=0, le=MAX_INT, description="Look near this step.")],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> s.Page[s.SharedProblem]:
    """Nearest first, among the recorded sequences within 40 steps. The same problem has the same number and prompt."""
    if len(jobs) != 2:
        detail = f"query parameter jobs: give the two runs to look into (got {len(jobs)})"
        raise ProblemError(422, "invalid_request", detail, param="jobs")
    left, right = (_places(services, job, step) for job in jobs)
    found = [
        s.SharedProblem(
            problem=problem,
            prompt=prompt,
            left=left[problem, prompt],
            right=right[problem, prompt],
            distance=abs(left[problem, prompt].step - step) + abs(right[problem, prompt].step - step),
        )
        for problem, prompt in left
        if (problem, prompt) in right
    ]
    found.sort(key=lambda one: (one.distance, one.problem))
    return s.Page[s.SharedProblem](data=found[:limit], has_more=len(found) > limit)


def _places(services: Services, job: Job, step: int) -> dict[Place, s.RecordedPlace]:
    """Each recorded problem at its place nearest to the step."""
    found = Records(job, services).many(max(0, step - _WINDOW), step + _WINDOW, _PLACE_COLUMNS)
    rows = sorted(found.table.to_pylist(), key=lambda row: (-abs(row["step"] - step), -row["n"]))
    return {
        (row["problem"], row["prompt"]): s.RecordedPlace(step=row["step"], n=row["n"], correct=row["correct"])
        for row in rows
    }
