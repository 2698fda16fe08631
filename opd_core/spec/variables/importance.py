"""Rollouts come from mu, the expectation is over the student pi."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from opd_core.spec.base import Spec


class Importance(Spec):
    """Correction for rollouts whose sampling distribution mu is not the student pi of the loss.

    Only the sampled-token updates need it: their expectation is over y ~ pi. The weight is detached.
    """

    kind: Literal["truncated", "ppo", "icepop", "none"] = Field(
        "truncated",
        description="truncated = min(pi / mu, cap). ppo = pi / mu, and no force where the update would take it further "
        "out of [1 - low, 1 + high]. icepop = pi / mu inside [low, cap], else 0.",
    )
    cap: float = Field(5.0, gt=0.0, description="Largest weight (truncated, icepop); the share beyond it is reported.")
    low: float = Field(0.2, ge=0.0, lt=1.0, description="ppo: 1 - low is the lower edge. icepop: the smallest weight.")
    high: float = Field(0.2, ge=0.0, description="ppo only: 1 + high is the upper edge.")

    @model_validator(mode="after")
    def _window(self) -> Importance:
        if self.kind == "icepop" and self.low >= self.cap:
            raise ValueError(f"importance.low {self.low} must be below importance.cap {self.cap}")
        return self
