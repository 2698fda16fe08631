"""What the student writes with: a key-value cache of this process, or a server."""

from __future__ import annotations

import hashlib

import torch

from opd_core.models import LanguageModel
from opd_core.rollout import AdapterHandover, FixedEngine, ServedStudent, WholeHandover
from opd_core.runs.endpoints import rollout_endpoint
from opd_core.runs.settings import Settings
from opd_core.servers import Server
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


def served_student(spec: RolloutSpec, student: LanguageModel, *, run: str) -> ServedStudent | None:
    """The server that writes for the student of the run at ``run`` (a URL), where the job names one; it has been asked
    whether it is there. Raises UserError or ServerUnreachable.
    """
    if spec.endpoint is None:
        return None
    server = Server(spec.endpoint, rollout_endpoint(Settings(), spec.endpoint), role="rollout")
    handover = WholeHandover if student.adapter is None else AdapterHandover
    served = ServedStudent(server, student, handover(server, hashlib.sha256(run.encode()).hexdigest()[:12]))
    served.check()
    return served
