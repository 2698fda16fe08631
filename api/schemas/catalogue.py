"""What a spec may name and hold."""

from __future__ import annotations

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
    brings: Json = Field(
        {}, description="Of the job beside the method, where the job leaves it open: teacher, rollout."
    )
    method: Json


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


class SpecSchema(Schema):
    """JSON schemas of what a job may ask for."""

    object: Literal["schema"] = "schema"
    job: Json
    method: Json = Field(description="Of the spec's ``method``, which the job's own schema leaves open.")
