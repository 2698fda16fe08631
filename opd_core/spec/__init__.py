"""What a job asks for: pydantic models, one per variable. No torch here."""

from opd_core.spec.errors import UserError, describe
from opd_core.spec.job import (
    BatchingSpec,
    CheckpointsSpec,
    JobSpec,
    ModelSpec,
    OptimizerSpec,
    ResourcesSpec,
    RolloutSpec,
    ScheduleSpec,
    StartSpec,
    TaskSpec,
    TelemetrySpec,
    Verifier,
)
from opd_core.spec.method import MethodSpec

__all__ = [
    "BatchingSpec",
    "CheckpointsSpec",
    "JobSpec",
    "MethodSpec",
    "ModelSpec",
    "OptimizerSpec",
    "ResourcesSpec",
    "RolloutSpec",
    "ScheduleSpec",
    "StartSpec",
    "TaskSpec",
    "TelemetrySpec",
    "UserError",
    "Verifier",
    "describe",
]
