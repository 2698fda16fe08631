"""May this service load what a spec names? Directories and files only below the allowed roots."""

from __future__ import annotations

from opd_core.runs.endpoints import endpoint, rollout_endpoint
from opd_core.runs.roots import below_roots
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec


def check_references(spec: JobSpec, settings: Settings) -> None:
    """Raise UserError for a model directory or data file outside OPD_MODEL_ROOTS / OPD_DATA_ROOTS, and for a server
    that nobody has registered.
    """
    if spec.teacher is not None and spec.teacher.endpoint is not None:
        endpoint(settings, spec.teacher.endpoint, param="teacher.endpoint")
    if spec.rollout.endpoint is not None:
        rollout_endpoint(settings, spec.rollout.endpoint)
    for param, reference in spec.models():
        if reference.model.startswith("/"):
            below_roots(reference.model, settings.model_roots, variable="OPD_MODEL_ROOTS", param=param)
    for field in ("dataset", "eval_dataset"):
        path = getattr(spec.task, field)
        if path is not None:
            below_roots(path, settings.data_roots, variable="OPD_DATA_ROOTS", param=f"task.{field}")
