"""Health of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.base import Schema


class HealthCheck(Schema):
    """One diagnostic as a light: where it stands, why, and what to try."""

    id: str = Field(examples=["A6"])
    title: str
    variable: str = Field(description="The variable of the method that it is about.")
    status: Literal["good", "watch", "bad", "unknown"]
    value: float | None = Field(description="Mean of the newest measurements.")
    unit: str
    sentence: str
    measures: str
    causes: str
    remedies: str
    series: dict[str, list[float | None]] = Field(description="Its metrics over ``steps``; the first is the value.")


class Health(Schema):
    """The diagnostics A1 to A11 of a run."""

    object: Literal["health"] = "health"
    steps: list[int]
    checks: list[HealthCheck]
    alarms: list[str] = Field(description="Alarms that went off, in words.")
