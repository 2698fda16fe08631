"""Is it alive, is it ready, how much does it do?"""

from __future__ import annotations

import redis
import structlog
from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from api import schemas as s
from api.auth import bearer
from api.problems import responses
from api.services import Services, ServicesDep
from opd_core.runs.artifacts import RunFiles

router = APIRouter(tags=["operations"])
log = structlog.get_logger()


@router.get("/livez", response_model=s.Liveness, summary="Does the process answer?", responses={})
def livez() -> s.Liveness:
    """Needs no token and looks at nothing else."""
    return s.Liveness()


@router.get(
    "/readyz",
    dependencies=[Depends(bearer)],
    response_model=s.Readiness,
    summary="Can the service do its work?",
    responses={503: {"model": s.Readiness, "description": "A part is missing; `checks` says which"}, **responses()},
)
def readyz(services: ServicesDep, response: Response) -> s.Readiness:
    """Asks the database, the broker and the artifact store."""
    checks = {"database": _database(services), "broker": _broker(services), "artifacts": _artifacts(services)}
    ready = all(check == "ok" for check in checks.values())
    response.status_code = 200 if ready else 503
    return s.Readiness(status="ready" if ready else "unready", checks=checks)


@router.get(
    "/metrics",
    dependencies=[Depends(bearer)],
    response_class=Response,
    summary="Prometheus metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **responses()},
)
def prometheus(request: Request) -> Response:
    """Jobs by status, what waits on each queue and for how long, workers, requests, latency, open streams."""
    return Response(generate_latest(request.app.state.meters.registry), media_type=CONTENT_TYPE_LATEST)


def _database(services: Services) -> s.Check:
    try:
        services.store.now()
    except (SQLAlchemyError, OSError) as error:
        log.warning("database_unreachable", error=type(error).__name__)
        return "unreachable"
    return "ok"


def _broker(services: Services) -> s.Check:
    if services.live is None:
        return "not_configured"
    try:
        services.live.ping()
    except redis.RedisError as error:
        log.warning("broker_unreachable", error=type(error).__name__)
        return "unreachable"
    return "ok"


def _artifacts(services: Services) -> s.Check:
    try:
        RunFiles(services.settings.artifacts_url).list()
    except OSError as error:
        log.warning("artifacts_unreachable", error=type(error).__name__)
        return "unreachable"
    return "ok"
