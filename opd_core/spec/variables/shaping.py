"""Bounds on the log-ratio before it becomes credit."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from opd_core.spec.base import Spec


class Shaping(Spec):
    """Bounds the log-ratio before it becomes credit (log-ratio route only)."""

    kind: Literal["none", "clip", "soft_log", "tanh", "power", "floor"] = Field(
        "none",
        description="clip to +-limit; soft_log = sign(r) log(1 + |r|); tanh = limit tanh(r / limit); "
        "power = p^exponent - pi^exponent, within [-1, 1]; floor = max(r, -limit), as if the teacher gave every token "
        "at least exp(-limit) of what the student gives it.",
    )
    limit: float = Field(5.0, gt=0.0, description="clip, tanh and floor only, in nats.")
    exponent: float = Field(1.0, gt=0.0, le=16.0, description="power only.")
