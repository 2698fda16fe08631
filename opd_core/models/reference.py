"""From what a spec calls a model to where it is: a hub id, an allowed directory, or a built-in demo model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opd_core.runs.roots import below_roots
from opd_core.runs.settings import Settings
from opd_core.spec import ModelSpec, UserError
from opd_core.tasks import demo_models


@dataclass(frozen=True)
class ResolvedModel:
    """``source`` is what from_pretrained takes; ``directory`` is None for a hub model."""

    source: str
    directory: Path | None
    revision: str | None


def resolve_model(ref: ModelSpec, *, role: str = "student") -> ResolvedModel:
    """Find a model, building the demo models on first use. UserError (param ``{role}.model``) if it may not be."""
    param = f"{role}.model"
    is_hub_id = not ref.model.startswith(("/", "demo/"))
    if ref.revision is not None and not is_hub_id:
        raise UserError(
            f"{role}.revision: '{ref.revision}' is only for hub models; '{ref.model}' has no revisions",
            param=f"{role}.revision",
        )
    if is_hub_id:
        return ResolvedModel(ref.model, None, ref.revision)
    if ref.model.startswith("demo/"):
        if ref.model not in demo_models.NAMES:
            raise UserError(
                f"{param}: there is no built-in model '{ref.model}' (there are {', '.join(demo_models.NAMES)})",
                param=param,
                code="unknown_model",
            )
        directory = demo_models.locate(Settings().home, ref.model)
        return ResolvedModel(str(directory), directory, None)
    directory = _checked_directory(ref.model, param)
    return ResolvedModel(str(directory), directory, None)


def _checked_directory(path: str, param: str) -> Path:
    roots = Settings().model_roots
    directory = below_roots(path, roots, variable="OPD_MODEL_ROOTS", param=param)
    if not directory.is_dir():
        raise UserError(f"{param}: there is no directory '{path}'", param=param, code="unknown_model")
    for entry in directory.iterdir():
        # A link inside the directory must not lead out of the roots either.
        if entry.is_symlink():
            below_roots(entry, roots, variable="OPD_MODEL_ROOTS", param=param)
    return directory
