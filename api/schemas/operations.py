"""Health of the service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.base import Schema

Check = Literal["ok", "unreachable", "not_configured"]


class Readiness(Schema):
    """Whether the service can do its work, and what is missing."""

    status: Literal["ready", "unready"]
    checks: Annotated[dict[str, Check], Field(description="database, broker, artifacts")]


class Liveness(Schema):
    """The process answers."""

    status: Literal["ok"] = "ok"
