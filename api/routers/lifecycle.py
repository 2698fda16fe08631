"""What can be done with a job: cancel, pause, resume, save now, rename, delete."""

from __future__ import annotations

import redis
import structlog
from fastapi import APIRouter, Request

from api import schemas as s
from api import views
from api.auth import require_owner
from api.problems import responses
from api.routers.parameters import JobDep
from api.services import ServicesDep

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])
log = structlog.get_logger()


@router.post(
    "/cancel",
    status_code=202,
    response_model=s.Job,
    summary="Ask for a job's end",
    responses={202: {"description": "Recorded. A waiting job is cancelled at once"}, **responses(403, 404, 409)},
)
def cancel_job(job: JobDep, services: ServicesDep) -> s.Job:
    """The trainer stops within one step plus a grace and keeps its last checkpoint. Asking twice changes nothing."""
    return views.job(services.store.request_cancel(job.id))


@router.post(
    "/pause",
    status_code=202,
    response_model=s.Job,
    summary="Ask a job to pause",
    responses={202: {"description": "Recorded. A waiting job is held back at once"}, **responses(403, 404, 409)},
)
def pause_job(job: JobDep, services: ServicesDep) -> s.Job:
    """The trainer saves a checkpoint after its step and ends; its worker is free. Asking twice changes nothing."""
    return views.job(services.store.request_pause(job.id))


@router.post(
    "/resume",
    status_code=202,
    response_model=s.Job,
    summary="Let a paused job go on",
    responses={202: {"description": "Recorded. The job waits for a worker again"}, **responses(403, 404, 409)},
)
def resume_job(job: JobDep, services: ServicesDep) -> s.Job:
    """It goes on from its checkpoint as if it had never paused. A job that is not paused stays as it is."""
    resumed = services.store.request_resume(job.id)
    if job.status == "paused" and resumed.status == "queued":
        services.announce(resumed)
    return views.job(resumed)


@router.post(
    "/checkpoints",
    status_code=202,
    response_model=s.Job,
    summary="Ask for a checkpoint now",
    responses={202: {"description": "Recorded. Saved after the step that is running"}, **responses(403, 404, 409)},
)
def save_job(job: JobDep, services: ServicesDep) -> s.Job:
    """Beside the regular ones, and kept as long as those. Asking again before it is saved changes nothing."""
    return views.job(services.store.request_checkpoint(job.id))


@router.patch(
    "",
    response_model=s.Job,
    summary="Rename a job, replace its metadata, or move it in its queue",
    responses=responses(400, 403, 404, 409, 413, 422),
)
def update_job(job: JobDep, services: ServicesDep, change: s.JobUpdate) -> s.Job:
    """Everything else is as submitted for good: another spec is another job."""
    return views.job(
        services.store.update_job(job.id, name=change.name, metadata=change.metadata, priority=change.priority)
    )


@router.delete(
    "",
    status_code=204,
    summary="Delete a job that has ended",
    responses={204: {"description": "Its records, files and live streams are gone"}, **responses(403, 404, 409)},
)
def delete_job(job: JobDep, services: ServicesDep, request: Request) -> None:
    """Checkpoints and the final student included. Jobs that started from it have their own copy and stay.

    What another token submitted needs the scope ``admin``.
    """
    require_owner(request, job)
    services.store.require_ended(job.id)
    if services.live is not None:
        try:
            services.live.forget(job.id)
        except redis.RedisError:
            # They end by themselves a day after the job.
            log.warning("live_streams_left", job_id=job.id)
    # Files before records: if this is interrupted, the job is still there to be deleted again.
    services.files(job.id).remove_all()
    services.store.delete_job(job.id)
