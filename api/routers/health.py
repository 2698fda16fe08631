"""The health of a run: its recorded metrics, read as lights."""

from __future__ import annotations

from fastapi import APIRouter

from api import schemas as s
from api import views
from api.problems import responses
from api.routers.parameters import JobDep
from api.services import ServicesDep
from opd_core.runs.health import CHECKS, Check, Run

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["telemetry"])

_POINTS = 200


@router.get("/health", response_model=s.Health, summary="Read a run's diagnostics", responses=responses(404))
def read_health(job: JobDep, services: ServicesDep) -> s.Health:
    """A1 to A11 as lights: what each measures, its value over time, what usually causes it and what to try."""
    rows = services.store.get_metrics(job.id)
    shown = views.metrics(rows, None, _POINTS)
    events = services.store.events_of(job.id, ("self_check", "health"))
    alarms = [event for event in events if event.type == "health"]
    run = Run(
        series=views.metrics(rows, None, None).series,
        method=job.resolved_spec.get("method", {}),
        self_check=next((event.data for event in reversed(events) if event.type == "self_check"), None),
        alarms=[str(event.data.get("check", "")).replace("_", " ") for event in alarms],
        teacher_accuracy=job.accuracy.get("teacher"),
    )
    checks = [_light(check, run, shown) for check in CHECKS]
    return s.Health(steps=shown.steps, checks=checks, alarms=[event.message for event in alarms])


def _light(check: Check, run: Run, shown: s.Metrics) -> s.HealthCheck:
    found = check.judge(run)
    return s.HealthCheck(
        id=check.id,
        title=check.title,
        variable=check.variable,
        status=found.status,
        value=found.value,
        unit=check.unit,
        sentence=found.sentence,
        measures=check.measures,
        causes=check.causes,
        remedies=check.remedies,
        series={key: shown.series[key] for key in check.keys if key in shown.series},
    )
