"""Which key-value cache the student writes with."""

from __future__ import annotations

import torch

from opd_core.models import LanguageModel
from opd_core.rollout import FixedEngine
from opd_core.spec import RolloutSpec, UserError


def choose_engine(
    spec: RolloutSpec, student: LanguageModel, *, device: torch.device, dtype: torch.dtype
) -> FixedEngine | None:
    """The engine of a cache of fixed size, computing in ``dtype``; None for a growing one.

    Raises UserError where a fixed one was asked for and the family cannot.
    """
    if spec.cache == "growing" or (spec.cache == "auto" and device.type != "cuda"):
        return None
    if FixedEngine.supports(student):
        return FixedEngine(student, dtype)
    if spec.cache == "auto":
        return None
    raise UserError(
        f"rollout.cache: 'fixed' is not possible with '{student.name}' ({student.model.config.model_type}): its cache "
        "has layers of other kinds; use 'growing' or 'auto'",
        param="rollout.cache",
        code="unsupported_cache",
    )
