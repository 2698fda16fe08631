"""What a job asks for: pydantic models, one per variable. No torch here."""

from opd_core.spec.errors import UserError, describe, validated
from opd_core.spec.job import (
    BatchingSpec,
    CheckpointsSpec,
    JobSpec,
    OptimizerSpec,
    ResourcesSpec,
    ScheduleSpec,
    StartSpec,
    TaskSpec,
    TelemetrySpec,
    Verifier,
)
from opd_core.spec.method import MethodSpec
from opd_core.spec.model import ModelSpec
from opd_core.spec.rollout import RolloutSpec
from opd_core.spec.student import StudentSpec
from opd_core.spec.teacher import TeacherSpec
from opd_core.spec.tool import Tool

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
    "StudentSpec",
    "TaskSpec",
    "TeacherSpec",
    "TelemetrySpec",
    "Tool",
    "UserError",
    "Verifier",
    "describe",
    "validated",
]
