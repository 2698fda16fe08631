"""What a job may take."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.base import Schema


class ModelSize(Schema):
    """A model of the spec, as far as the machine of the service holds it."""

    param: str = Field(description="The field that names it.")
    model: str
    parameters: int | None = None
    reason: str | None = Field(None, description="Why the number is not known.")


class MemoryPart(Schema):
    """A part of what one process holds."""

    what: str
    gib: float


class Estimate(Schema):
    """Told from the spec and the headers of local checkpoints; nothing is loaded."""

    object: Literal["estimate"] = "estimate"
    rollouts_per_step: int
    rollouts: int = Field(description="Of all steps.")
    student_tokens: int = Field(description="Completion tokens that the student writes, at most.")
    scored_tokens: int = Field(description="Completion tokens that the teachers read, at most.")
    flops: float | None = Field(None, description="Of training, about; null where a model's size is not known.")
    models: list[ModelSize] = []
    memory: list[MemoryPart] | None = Field(None, description="null where a model's size is not known.")
    memory_gib: float | None = Field(None, description="All parts together.")
    notes: list[str] = Field([], description="What is counted and what is not.")

    @property
    def unknown(self) -> list[str]:
        """A sentence about each model whose size is not known."""
        return [
            f"{model.param}: the size of '{model.model}' is not known: {model.reason}."
            for model in self.models
            if model.reason is not None
        ]
