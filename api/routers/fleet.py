"""Who works, what waits, and what went wrong lately."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api import schemas as s
from api import views
from api.problems import responses
from api.routers.parameters import Limit
from api.services import ServicesDep

router = APIRouter(prefix="/v1", tags=["fleet"])


@router.get("/workers", response_model=s.Page[s.Worker], summary="List workers", responses=responses())
def list_workers(services: ServicesDep) -> s.Page[s.Worker]:
    """Who answers which queues, doing what; ``alive`` = heard of within the last minute."""
    return s.Page[s.Worker](data=[views.worker(row) for row in services.store.list_workers()])


@router.get("/queues", response_model=s.Page[s.Queue], summary="List queues", responses=responses())
def list_queues(services: ServicesDep) -> s.Page[s.Queue]:
    """Every queue that has jobs or a living worker. Jobs of a queue without one wait for ever."""
    store = services.store
    return s.Page[s.Queue](data=views.queues(store.count_by_queue(), store.list_workers()))


@router.get(
    "/attempts", response_model=s.Page[s.Attempt], summary="List recent starts of jobs", responses=responses(422)
)
def list_recent_attempts(
    services: ServicesDep,
    limit: Limit = 20,
    failed: Annotated[bool, Query(description="Only those that ended badly: crashed, lost or refused.")] = False,
) -> s.Page[s.Attempt]:
    """Of all jobs, newest first."""
    found = services.store.list_recent_attempts(limit, failed=failed)
    return s.Page[s.Attempt](data=[views.attempt(row) for row in found])
