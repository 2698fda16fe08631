"""May this service load what a spec names? Directories and files only below the allowed roots."""

from __future__ import annotations

from pathlib import Path

from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec, UserError


def check_references(spec: JobSpec, settings: Settings) -> None:
    """Raise UserError for a model directory or data file outside OPD_MODEL_ROOTS / OPD_DATA_ROOTS."""
    for role in ("student", "teacher"):
        reference = getattr(spec, role)
        if reference.model.startswith("/"):
            _check(f"{role}.model", reference.model, settings.model_roots, "OPD_MODEL_ROOTS")
    for field in ("dataset", "eval_dataset"):
        path = getattr(spec.task, field)
        if path is not None:
            _check(f"task.{field}", path, settings.data_roots, "OPD_DATA_ROOTS")


def _check(param: str, path: str, roots: tuple[Path, ...], variable: str) -> None:
    if not path.startswith("/"):
        message = f"{param}: give an absolute path below a directory of {variable} (got {path!r})"
        raise UserError(message, param=param, code="path_not_allowed")
    # Symlinks are followed first: a link below a root that leads out of it does not count as below it.
    inside = "\x00" not in path and any(Path(path).resolve().is_relative_to(root) for root in roots)
    if not inside:
        raise UserError(
            f"{param}: {path!r} is not below a directory that this service may read; "
            f"put it there, or add its directory to {variable} of the service",
            param=param,
            code="path_not_allowed",
        )
