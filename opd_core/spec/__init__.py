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
    TaskSpec,
    TelemetrySpec,
    Verifier,
)
from opd_core.spec.method import (
    Aggregation,
    DirectObjective,
    Importance,
    LogRatioObjective,
    MethodSpec,
    Support,
)

__all__ = [
    "Aggregation",
    "BatchingSpec",
    "CheckpointsSpec",
    "DirectObjective",
    "Importance",
    "JobSpec",
    "LogRatioObjective",
    "MethodSpec",
    "ModelSpec",
    "OptimizerSpec",
    "ResourcesSpec",
    "RolloutSpec",
    "ScheduleSpec",
    "Support",
    "TaskSpec",
    "TelemetrySpec",
    "UserError",
    "Verifier",
    "describe",
]
