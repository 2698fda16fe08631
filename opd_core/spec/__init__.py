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
    CounterfactualRouting,
    Credit,
    DirectObjective,
    Importance,
    LogRatioObjective,
    MethodSpec,
    PlainRouting,
    Support,
)

__all__ = [
    "Aggregation",
    "BatchingSpec",
    "CheckpointsSpec",
    "CounterfactualRouting",
    "Credit",
    "DirectObjective",
    "Importance",
    "JobSpec",
    "LogRatioObjective",
    "MethodSpec",
    "ModelSpec",
    "OptimizerSpec",
    "PlainRouting",
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
