"""What the file holds of a run: plain JSON data, each part as the interface shows it."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from api import schemas as s
from api import views
from api.export import sequences
from api.heatmaps import routing
from api.recorded import Records
from api.services import Services
from opd_core import recipes
from opd_core.runs.plain import finite
from opd_core.runs.rows import Event, Job
from opd_core.spec import UserError

Json = dict[str, Any]

_MAX_ROWS = 2000  # rows of metrics that are looked at: evaluated ones are never thinned out
_MAX_POINTS = 400
_MAX_EVENTS = 1000
_LAST_STEP = 2**31 - 1
_HEATMAP = (20, 24)  # suppressed tokens, destinations


def collect(job: Job, services: Services) -> Json:
    """Everything about a job as it stands. What an older run did not record is null or missing."""
    store = services.store
    report = store.get_report(job.id) or {}
    rows = store.get_metrics(job.id)
    stride = max(1, -(-len(rows) // _MAX_ROWS))
    metrics = views.metrics(rows[::-1][::stride][::-1], None, _MAX_POINTS)
    events = _events(job, services)
    recorded = Records(job, services)
    vocabulary = services.vocabulary(job.id)
    found = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "opd_version": version("opd"),
        "job": views.job(job).model_dump(mode="json", exclude={"spec", "resolved_spec"}),
        "seed": job.resolved_spec.get("seed"),
        "spec": job.resolved_spec,
        "recipe": _recipe(job.recipe),
        "budget": report.get("budget") or _budget(job, metrics),
        "health": report.get("health") or [{"sentence": event.message} for event in events if event.type == "health"],
        "checklist": report.get("checklist"),
        "self_check": report.get("self_check"),
        "versions": report.get("versions") or {},
        "metrics": metrics.model_dump(),
        "routing": _routing(recorded, vocabulary),
        "records": sequences.collect(recorded, vocabulary),
        "events": [views.event(event).model_dump(mode="json") for event in events],
        "attempts": [views.attempt(row).model_dump(mode="json") for row in store.list_attempts(job.id)],
    }
    return _short(finite(found))  # type: ignore[no-any-return]


def _recipe(name: str) -> Json | None:
    """None for a recipe that this version no longer has: the resolved spec still says what was trained."""
    try:
        return recipes.load(name).model_dump(mode="json", exclude={"method"})
    except UserError:
        return None


def _budget(job: Job, metrics: s.Metrics) -> Json:
    """What is known of the budget without a report."""
    spent = {name: job.progress.get(name) for name in ("student_tokens", "teacher_tokens")}
    for name in ("flops", "wall_s"):
        spent[name] = next((v for v in reversed(metrics.series.get(name, [])) if v is not None), None)
    return spent


def _routing(recorded: Records, vocabulary: list[str]) -> Json | None:
    heatmap = routing.routing(recorded.many(0, _LAST_STEP, routing.COLUMNS), vocabulary, *_HEATMAP)
    return heatmap.model_dump() if heatmap.states else None


def _events(job: Job, services: Services) -> list[Event]:
    found: list[Event] = []
    more = True
    while more and len(found) < _MAX_EVENTS:
        page, more = services.store.list_events(job.id, found[-1].seq if found else 0)
        found += page
    return found


def _short(value: Any) -> Any:
    """Six digits: the file is for reading."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(entry) for key, entry in value.items()}
    return [_short(entry) for entry in value] if isinstance(value, list) else value
