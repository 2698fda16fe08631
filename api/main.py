"""The HTTP door: jobs in, live streams and token data out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool

from api import documentation, problems, reconciler
from api.auth import RequireToken, bearer
from api.body import JsonBody
from api.limits import LimitRequests
from api.observe import Meters, Observe
from api.routers import (
    catalogue,
    checkpoints,
    compare,
    export,
    fleet,
    health,
    jobs,
    lifecycle,
    operations,
    questions,
    records,
    telemetry,
)
from api.services import Services
from opd_core.runs.logs import configure_logs
from opd_core.runs.settings import Settings

_TAGS = [
    {"name": "jobs", "description": "Submit, list, watch, pause, cancel and delete distillation jobs."},
    {"name": "telemetry", "description": "Scalars, token records, heatmaps and the report of a run."},
    {
        "name": "questions",
        "description": "What if, and probes: asked about a run, answered by a worker beside training.",
    },
    {"name": "checkpoints", "description": "What a run saved, for download."},
    {"name": "catalogue", "description": "Recipes, models and tasks that a spec may name; its fields."},
    {"name": "fleet", "description": "Workers, queues, and starts of jobs that ended badly."},
    {"name": "operations", "description": "Health and metrics."},
]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Opens nothing: database and broker are reached on first use."""
    settings = settings or Settings()
    configure_logs(settings.log_format)
    services = Services(settings)
    meters = Meters(services)
    app = FastAPI(
        title="opd",
        summary="On-policy distillation of language models as a service",
        version=version("opd"),
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.services = services
    app.state.meters = meters
    problems.install(app)
    protected = [Depends(bearer)]
    for part in (
        jobs,
        lifecycle,
        telemetry,
        health,
        records,
        questions,
        checkpoints,
        compare,
        export,
        catalogue,
        fleet,
    ):
        app.include_router(part.router, dependencies=protected)
    app.include_router(operations.router)
    app.include_router(documentation.router)
    # The last one added is the outermost: it sees refusals too.
    app.add_middleware(JsonBody)
    app.add_middleware(LimitRequests, settings=services.settings)
    app.add_middleware(RequireToken, services=services)
    app.add_middleware(Observe, meters=meters)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    await run_in_threadpool(lambda: services.store)  # a database that cannot be opened stops the start
    thread = reconciler.start(services) if services.settings.reconcile else None
    yield
    services.stopping.set()
    if thread is not None:
        await run_in_threadpool(thread.join, 5.0)
    services.close()


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document with the errors that really come: problems, and validation errors where declared."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, tags=app.openapi_tags, routes=app.routes
        )
        for operation in [operation for path in document["paths"].values() for operation in path.values()]:
            for status, response in list(operation["responses"].items()):
                content = response.get("content", {})
                for media_type, body in list(content.items()):
                    schema = body.get("schema", {}).get("$ref", "")
                    if schema.endswith("/Problem"):
                        content[problems.MEDIA_TYPE] = content.pop(media_type)
                    elif schema.endswith("/HTTPValidationError"):
                        del operation["responses"][status]
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema


app = create_app()
