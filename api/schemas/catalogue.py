"""What a spec may name, and who works."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.schemas.base import Json, Schema


class Recipe(Schema):
    """A published method: a named starting point for ``method``."""

    object: Literal["recipe"] = "recipe"
    name: str
    title: str
    summary: str
    formula: str
    citation: str
    route: Literal["direct", "log_ratio"]
    variable: str
    grade: Literal["published", "reported", "preliminary", "control", "hypothesis"]
    evidence: str
    differs: str = ""
    fixed_point: Literal["teacher", "shifted"]
    fixed_point_reason: str | None = None
    teacher: str
    needs: list[str] = []
    cost: list[str] = []
    warnings: list[str] = []
    method: Json


class Worker(Schema):
    """A worker's last sign of life."""

    object: Literal["worker"] = "worker"
    name: str
    host: str
    pid: int
    queues: list[str]
    labels: Json = {}
    job_id: str | None = None
    alive: bool
    started_at: datetime
    seen_at: datetime


class Model(Schema):
    """Something a spec's ``student.model`` or ``teacher.model`` may name (hub ids come on top)."""

    object: Literal["model"] = "model"
    id: str = Field(description="Use this as student.model or teacher.model.")
    kind: Literal["demo", "directory"]


class Task(Schema):
    """A built-in task."""

    object: Literal["task"] = "task"
    name: str = Field(description="Use this as task.name.")
    summary: str
