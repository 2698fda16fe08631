"""Create, list, read and watch jobs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api import schemas as s
from api import views
from api.auth import identity
from api.estimate import estimate
from api.forks import copy_start, resolve_start
from api.problems import ProblemError, not_found, responses
from api.references import check_references
from api.routers.parameters import MAX_INT, JobDep, Limit
from api.services import ServicesDep
from api.stream import EVENT_ID, Viewer
from opd_core import recipes
from opd_core.runs.ids import ID_PATTERN, new_id
from opd_core.runs.store import QueueFull
from opd_core.spec import JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_EXAMPLE: dict[str, Any] = {
    "name": "demo-forward-kl",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
    "recipe": "forward-kl",
    "schedule": {"steps": 150},
}
_LOCATION = {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}
_ETAG = {"ETag": {"description": "For If-None-Match.", "schema": {"type": "string"}}}


@router.post(
    "",
    status_code=201,
    response_model=s.Job,
    summary="Create and queue a job",
    responses={
        201: {"headers": _LOCATION, "description": "The job is durable and waits for a worker"},
        200: {"model": s.Validation, "description": "validate_only: what would be trained; nothing is created"},
        **responses(400, 403, 413, 422),
    },
)
def create_job(
    request: Request,
    services: ServicesDep,
    spec: Annotated[JobSpec, Body(openapi_examples={"demo": {"summary": "The built-in demo", "value": _EXAMPLE}})],
    validate_only: Annotated[bool, Query(description="Check and resolve the spec, create nothing.")] = False,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[!-~]{1,255}$",
            description="For 24 hours a repeated request with the same key returns the same job.",
        ),
    ] = None,
) -> Response:
    """Every default and the recipe are filled in and checked first; a spec that cannot learn is refused with 422.

    The job is written before the worker is told. With the broker away the job waits and is announced later.
    """
    who = identity(request).name
    once = None
    if idempotency_key is not None and not validate_only:
        digest = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
        once = (who, idempotency_key, digest)
        if (known := services.store.replayed(once)) is not None:
            return _created(views.job(known), {"Idempotency-Replayed": "true"})
    resolved = resolve_start(recipes.resolve(spec), services)
    check_references(resolved, services.settings)
    warnings = resolved.warnings()
    if validate_only:
        answer = s.Validation(
            resolved_spec=resolved.model_dump(mode="json"),
            warnings=warnings,
            estimate=estimate(resolved, services.settings),
        )
        return JSONResponse(answer.model_dump(mode="json"))
    job_id = new_id("job")
    copy_start(resolved, job_id, services)
    try:
        job = services.store.create_job(
            spec,
            resolved,
            warnings,
            id=job_id,
            idempotency=once,
            created_by=who,
            request_id=request.state.request_id,
            quota=services.quota,
        )
    except QueueFull:
        services.files(job_id).remove_all()
        raise
    if job.id != job_id:  # another request with the same key was faster
        services.files(job_id).remove_all()
        return _created(views.job(job), {"Idempotency-Replayed": "true"})
    services.announce(job)
    return _created(views.job(job), {})


def _created(job: s.Job, headers: dict[str, str]) -> Response:
    return JSONResponse(job.model_dump(mode="json"), 201, {"Location": f"/v1/jobs/{job.id}", **headers})


_METADATA = re.compile(r"metadata\[([A-Za-z0-9_.-]{1,64})\]")
_METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "required": False,
    "description": "Only jobs that have all of it: `metadata[team]=blue`.",
    "schema": {
        "type": "object",
        "maxProperties": 8,
        "propertyNames": {"pattern": "^[A-Za-z0-9_.-]{1,64}$"},
        "additionalProperties": {"type": "string", "maxLength": 256},
    },
}


def _metadata(request: Request) -> dict[str, str]:
    """``metadata[KEY]=VALUE`` of the query."""
    asked = {name: value for name, value in request.query_params.items() if name.startswith("metadata")}
    found = {match[1]: value for name, value in asked.items() if (match := _METADATA.fullmatch(name))}
    if len(found) < len(asked) or len(found) > 8 or any(len(value) > 256 for value in found.values()):
        detail = "query parameter metadata: up to 8 of metadata[KEY]=VALUE; a KEY has at most 64 of A-Z a-z 0-9 _ . -"
        raise ProblemError(422, "invalid_request", f"{detail}, a VALUE at most 256 characters", param="metadata")
    return found


@router.get(
    "",
    response_model=s.Page[s.Job],
    summary="List jobs, newest first",
    responses=responses(422),
    openapi_extra={"parameters": [_METADATA_PARAMETER]},
)
def list_jobs(
    services: ServicesDep,
    metadata: Annotated[dict[str, str], Depends(_metadata)],
    limit: Limit = 20,
    after: Annotated[str | None, Query(pattern=ID_PATTERN, description="next_cursor of the page before.")] = None,
    status: Annotated[s.Status | None, Query(description="Only jobs of this status.")] = None,
    name: Annotated[str | None, Query(max_length=96, description="Only jobs whose name contains this.")] = None,
) -> s.Page[s.Job]:
    """A page of jobs with everything that the single job shows."""
    found, more = services.store.list_jobs(limit, after, status, name, metadata)
    return s.Page[s.Job](
        data=[views.job(row) for row in found], has_more=more, next_cursor=found[-1].id if more else None
    )


@router.get(
    "/{job_id}",
    response_model=s.Job,
    summary="Read a job",
    responses={
        200: {"headers": _ETAG},
        304: {"description": "Not changed since the given ETag"},
        **responses(404),
    },
)
def read_job(job: JobDep, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Cheap to poll: send the ETag back as If-None-Match and get 304 while nothing has changed."""
    body = views.job(job).model_dump_json().encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@router.get(
    "/{job_id}/events",
    response_model=s.Page[s.Event],
    summary="Read a job's audit log",
    responses=responses(404, 422),
)
def list_events(
    job: JobDep,
    services: ServicesDep,
    after: Annotated[int, Query(ge=0, le=MAX_INT, description="Events behind this seq.")] = 0,
    limit: Limit = 100,
) -> s.Page[s.Event]:
    """Durable and in order, oldest first."""
    found, more = services.store.list_events(job.id, after, limit)
    return s.Page[s.Event](
        data=[views.event(row) for row in found], has_more=more, next_cursor=str(found[-1].seq) if more else None
    )


@router.get(
    "/{job_id}/attempts",
    response_model=s.Page[s.Attempt],
    summary="Read how a job was started and how each start ended",
    responses=responses(404),
)
def list_attempts(job: JobDep, services: ServicesDep) -> s.Page[s.Attempt]:
    """One entry per claim by a worker, first to last."""
    return s.Page[s.Attempt](data=[views.attempt(row) for row in services.store.list_attempts(job.id)])


@router.get(
    "/{job_id}/logs",
    response_class=PlainTextResponse,
    summary="Read what a trainer wrote to its log",
    responses={200: {"content": {"text/plain": {}}}, **responses(404, 422)},
)
def read_log(
    job: JobDep,
    services: ServicesDep,
    attempt: Annotated[int | None, Query(ge=1, le=MAX_INT, description="Which start; default: the newest.")] = None,
    tail: Annotated[int | None, Query(ge=1, le=100_000, description="Only the last lines.")] = None,
) -> PlainTextResponse:
    """Free text, secrets left out; written every half minute and when the trainer ends."""
    number = attempt or job.attempt
    try:
        text = services.files(job.id).read_bytes(f"logs/attempt-{number}.log").decode("utf-8", "replace")
    except FileNotFoundError as error:
        raise not_found(f"attempt {number} of this job has no log (yet)", param="attempt") from error
    return PlainTextResponse(text if tail is None else "".join(text.splitlines(keepends=True)[-tail:]))


def _viewer(
    job: JobDep,
    services: ServicesDep,
    after: Annotated[str | None, Query(max_length=40, description="Like Last-Event-ID.")] = None,
    types: Annotated[
        str | None, Query(max_length=200, description="Comma-separated types; end and resync always come.")
    ] = None,
    last_event_id: Annotated[str | None, Header(max_length=40, description="Go on behind this update.")] = None,
) -> Viewer:
    position = last_event_id or after
    if position is not None and not EVENT_ID.fullmatch(position):
        param = "Last-Event-ID" if last_event_id else "after"
        detail = f"{param}: not the id of a live update (got {position!r})"
        raise ProblemError(422, "invalid_request", detail, param=param)
    wanted = frozenset(part.strip() for part in types.split(",")) if types else None
    return Viewer(services, job.id, position, wanted)


async def _place(request: Request, services: ServicesDep) -> AsyncIterator[None]:
    with services.streams.place(identity(request).name):
        yield


@router.get(
    "/{job_id}/stream",
    response_class=EventSourceResponse,
    dependencies=[Depends(_place)],
    summary="Watch a job live (server-sent events)",
    responses=responses(404, 422),
)
async def stream_job(viewer: Annotated[Viewer, Depends(_viewer)], job: JobDep) -> AsyncIterator[ServerSentEvent]:
    """Types: status, progress, metrics, records, checkpoint, event, accuracy; ``end`` comes last.

    Starts with the present state, or behind ``Last-Event-ID``. ``resync`` says that updates were missed: read the
    recorded ones. The connection is kept alive with a comment every 15 s.
    """
    async for event in viewer.events(job):
        yield event
