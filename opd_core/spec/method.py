"""The method: one field per variable of the taxonomy of arXiv 2606.22793.

A method is a point in this space; a recipe is a named point; a job overrides single variables.
Variables that have one choice only so far (credit, routing) are not fields yet.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from opd_core.spec.base import Spec

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]


class DirectObjective(Spec):
    """A distributional loss between student and teacher at each student-written state."""

    route: Literal["direct"] = "direct"
    divergence: Divergence = Field(
        "forward_kl",
        description="forward_kl = KL(teacher || student); reverse_kl = KL(student || teacher); "
        "jsd = beta KL(teacher || m) + (1 - beta) KL(student || m), m = beta teacher + (1 - beta) student",
    )
    beta: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Weight of the teacher in the Jensen-Shannon mixture. JSD itself vanishes at the ends: "
        "0 means forward_kl and 1 means reverse_kl (the loss scale jumps there).",
    )
    temperature: float = Field(
        1.0, gt=0.0, le=10.0, description="Softmax temperature of both models in the loss (not in sampling)."
    )

    @property
    def effective_divergence(self) -> Divergence:
        """The divergence that is really applied once the ends of the JSD family are mapped to the KLs."""
        if self.divergence != "jsd":
            return self.divergence
        return {0.0: "forward_kl", 1.0: "reverse_kl"}.get(self.beta, "jsd")  # type: ignore[return-value]


class LogRatioObjective(Spec):
    """A policy-gradient update on r_t = log p_teacher(y_t) - log pi_student(y_t), always detached."""

    route: Literal["log_ratio"] = "log_ratio"
    temperature: float = Field(
        1.0,
        gt=0.0,
        le=10.0,
        description="Softmax temperature of both models in the log-ratio (not in sampling).",
    )


Objective = Annotated[DirectObjective | LogRatioObjective, Field(discriminator="route")]


class Support(Spec):
    """Which tokens of the vocabulary are compared at a state."""

    kind: Literal["full", "sampled"] = Field(
        "full", description="full = the whole vocabulary; sampled = only the token the student wrote."
    )


class Importance(Spec):
    """Correction for rollouts whose sampling distribution mu is not the student pi of the loss.

    Only the log-ratio route needs it: its expectation is over y ~ pi. The weight min(pi/mu, cap) is detached.
    """

    kind: Literal["truncated", "none"] = "truncated"
    cap: float = Field(5.0, gt=0.0, description="Largest weight; the share of truncated tokens is reported.")


class Aggregation(Spec):
    """How per-token losses become one number. The normaliser is global: over all ranks and micro-batches."""

    per: Literal["token", "sequence"] = Field(
        "token",
        description="token = sum over all completion tokens / their number; "
        "sequence = mean over sequences of each sequence's token mean.",
    )


class MethodSpec(Spec):
    """One on-policy distillation method. Every combination that cannot learn is refused with the reason."""

    objective: Objective = DirectObjective()
    support: Support = Support()
    importance: Importance = Importance()
    aggregation: Aggregation = Aggregation()

    @model_validator(mode="after")
    def _combinations_that_cannot_learn(self) -> MethodSpec:
        if self.objective.route == "direct" and self.support.kind == "sampled":
            raise ValueError(
                "support.kind 'sampled' with objective.route 'direct' differentiates log pi - log p on one token, "
                "whose expected gradient is zero; use support.kind 'full', or objective.route 'log_ratio'"
            )
        if self.objective.route == "log_ratio" and self.support.kind == "full":
            raise ValueError(
                "objective.route 'log_ratio' scores the sampled token only; use support.kind 'sampled', or the "
                "exact expectation of the same update: objective {route: direct, divergence: reverse_kl}"
            )
        return self

    def warnings(self) -> list[str]:
        """Known biases of an accepted combination, in sentences that are stored on the run."""
        found = []
        objective = self.objective
        if (
            isinstance(objective, DirectObjective)
            and objective.divergence == "jsd"
            and objective.beta in (0.0, 1.0)
        ):
            found.append(
                f"objective.beta {objective.beta} is the end of the JSD family: "
                f"trained as {objective.effective_divergence}, whose scale differs from beta near the end"
            )
        return found
