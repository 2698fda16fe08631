"""How per-token losses become one number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from opd_core.spec.base import Spec


class Aggregation(Spec):
    """How per-token losses become one number. The normaliser is global: over all ranks and micro-batches."""

    per: Literal["token", "sequence", "constant"] = Field(
        "token",
        description="token = sum over all completion tokens / their number; "
        "sequence = mean over sequences of each sequence's token mean; "
        "constant = sum over all tokens / (sequences x constant), so that length never dilutes.",
    )
    constant: float = Field(100.0, gt=0.0, description="constant only, in tokens.")
    denominator: Literal["actions", "gate_mass"] = Field(
        "actions",
        description="What is counted: actions = every completion token, so that a closed gate weakens the update; "
        "gate_mass = the sum of the gates, so that the open ones share all of it.",
    )
    by_origin: bool = Field(
        True, description="Rows that the student did not write have a normaliser of their own (golden data)."
    )
