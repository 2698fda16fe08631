"""A run as one file."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.export.collect import collect
from api.export.page import policy, render
from api.problems import responses
from api.routers.parameters import JobDep
from api.services import ServicesDep

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["telemetry"])


@router.get(
    "/export",
    response_class=Response,
    summary="Take a run home as one HTML file",
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "The file, below about 5 MB"},
        **responses(404),
    },
)
def export_job(job: JobDep, services: ServicesDep) -> Response:
    """Curves, budget, routing, tokens of three steps, report, events: readable without a server. A run that is not
    over is exported as it stands.
    """
    headers = {
        "Content-Disposition": f'attachment; filename="opd-{job.id}.html"',
        "Content-Security-Policy": f"{policy()}; frame-ancestors 'none'; sandbox allow-scripts",
    }
    return Response(render(collect(job, services)), headers=headers, media_type="text/html")
