"""A reference to a causal language model."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from opd_core.spec.base import Spec

Quantization = Literal["none", "int8", "nf4"]
# A Hugging Face id (owner/name), a built-in demo/* model, or an absolute directory below an allowed root.
_MODEL_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?$")


def check_reference(value: str) -> str:
    """``value`` if it can name a model. Whether this service may load it is asked later. Raises ValueError."""
    if value.startswith("/"):
        if "\x00" in value or ".." in value.split("/"):
            raise ValueError("a model directory must be an absolute path without '..'")
        return value
    if not _MODEL_ID.match(value):
        raise ValueError("a model is 'owner/name', a built-in 'demo/...' name, or an absolute directory")
    return value


class ModelSpec(Spec):
    """A causal language model: a hub id, a directory below an allowed root, or a built-in demo/* model."""

    model: str = Field(max_length=1024, examples=["demo/student"])
    revision: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]{1,128}$", description="Commit, tag or branch of a hub model."
    )

    @field_validator("model")
    @classmethod
    def _reference(cls, value: str) -> str:
        return check_reference(value)
