"""The common ground of all shapes: lists and problems."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, Any]
Item = TypeVar("Item")


class Schema(BaseModel):
    """Readers ignore fields that a newer service adds."""

    model_config = ConfigDict(extra="ignore")


class Page(Schema, Generic[Item]):
    """A list. Pass ``next_cursor`` as ``after`` for the next page."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False
    next_cursor: str | None = None


class Problem(Schema):
    """An error, RFC 9457 ``application/problem+json``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:opd:problem:invalid_spec",
                    "title": "The request is not valid",
                    "status": 422,
                    "detail": "optimizer.lr: Input should be greater than 0 (got -1.0)",
                    "param": "optimizer.lr",
                    "request_id": "req_01m837yra7fgfac0fh2b4qwbpp",
                }
            ]
        }
    )

    type: str = Field(description="urn:opd:problem:CODE; the code is stable.")
    title: str = Field(description="The kind of problem, the same for every instance.")
    status: int
    detail: str = Field(description="One sentence about this instance: what, where, what is allowed.")
    param: str | None = Field(None, description="The field, parameter or header it is about.")
    allowed: list[str] | None = Field(None, description="For an invalid transition: the possible ones.")
    request_id: str | None = None
