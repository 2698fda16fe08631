"""The method: one field per variable of the taxonomy of arXiv 2606.22793.

A method is a point in this space; a recipe is a named point; a job overrides single variables.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from opd_core.spec.base import Spec

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl"]
TopKKind = Literal["teacher_top_k", "student_top_k", "union"]
Remainder = Literal["tail", "renormalised"]
Weighting = Literal["teacher", "deficit", "geometric"]


class DirectObjective(Spec):
    """A distributional loss between student and teacher at each student-written state."""

    route: Literal["direct"] = "direct"
    divergence: Divergence = Field(
        "forward_kl",
        description="forward_kl = KL(teacher || student); reverse_kl = KL(student || teacher); "
        "jsd = beta KL(teacher || m) + (1 - beta) KL(student || m), m = beta teacher + (1 - beta) student; "
        "skew_forward_kl = KL(teacher || alpha teacher + (1 - alpha) student); "
        "skew_reverse_kl = KL(student || alpha student + (1 - alpha) teacher)",
    )
    beta: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Weight of the teacher in the Jensen-Shannon mixture. JSD itself vanishes at the ends: "
        "0 means forward_kl and 1 means reverse_kl (the loss scale jumps there).",
    )
    alpha: float = Field(0.1, gt=0.0, lt=1.0, description="skew_* only: the integrand never exceeds -log alpha.")
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


class FullSupport(Spec):
    """The whole vocabulary."""

    kind: Literal["full"] = "full"


class SampledSupport(Spec):
    """Only the token that the student wrote (log-ratio route)."""

    kind: Literal["sampled"] = "sampled"


class TopKSupport(Spec):
    """The k most probable tokens of one model or both, and what becomes of the rest (direct route)."""

    kind: TopKKind
    k: int = Field(32, ge=1, le=4096, description="union holds up to 2 k tokens.")
    remainder: Remainder = Field(
        "tail",
        description="tail = one bucket for all other tokens; renormalised = they are left out, so mass that leaves the "
        "support goes unseen.",
    )

    @model_validator(mode="after")
    def _one_token_has_no_shape(self) -> TopKSupport:
        if self.remainder == "renormalised" and self.k == 1 and self.kind != "union":
            raise ValueError("remainder 'renormalised' with k 1 is log 1 - log 1 = 0: use k >= 2, or remainder 'tail'")
        return self


Support = Annotated[FullSupport | SampledSupport | TopKSupport, Field(discriminator="kind")]


class Shaping(Spec):
    """Bounds the log-ratio before it becomes credit (log-ratio route only)."""

    kind: Literal["none", "clip", "soft_log", "tanh"] = Field(
        "none", description="clip to +-limit; soft_log = sign(r) log(1 + |r|); tanh = limit tanh(r / limit)."
    )
    limit: float = Field(5.0, gt=0.0, description="clip and tanh only, in nats.")


class Credit(Spec):
    """How the log-ratios of a rollout are credited to its tokens (log-ratio route only)."""

    estimator: Literal["immediate", "return_to_go", "discounted"] = Field(
        "immediate",
        description="immediate = each token its own log-ratio; return_to_go = the sum from it to the end; "
        "discounted = that sum with gamma per token.",
    )
    gamma: float = Field(0.9, ge=0.0, le=1.0, description="discounted only.")
    baseline: Literal["none", "expected"] = Field(
        "none", description="expected = minus its expectation -KL(student || teacher) at the state (immediate only)."
    )

    @property
    def discount(self) -> float:
        """gamma of the estimator: 0 for immediate credit, 1 for the return-to-go."""
        return {"immediate": 0.0, "return_to_go": 1.0}.get(self.estimator, self.gamma)


class PlainRouting(Spec):
    """What softmax does by itself."""

    kind: Literal["plain"] = "plain"


class CounterfactualRouting(Spec):
    """CR-OPD: a suppressed token's mass goes to teacher-supported, student-reachable alternatives."""

    kind: Literal["counterfactual"] = "counterfactual"
    magnitude: Literal["log_ratio", "advantage"] = Field(
        "log_ratio",
        description="How much is moved: |r| where r < 0, or |A| where A < 0 and r < 0 (with credit that is not plain "
        "and immediate the two differ in sign).",
    )
    student_top_k: int = Field(16, ge=1, le=1024)
    teacher_top_k: int = Field(8, ge=1, le=1024)
    weighting: Weighting = "teacher"
    strength: float = Field(1.0, ge=0.0, le=1.0, description="1 = all of it is routed, 0 = plain.")
    fallback: Literal["abstain", "plain"] = Field(
        "plain", description="Where no alternative qualifies: say nothing, or suppress as softmax does."
    )


Routing = Annotated[PlainRouting | CounterfactualRouting, Field(discriminator="kind")]


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
    support: Support = FullSupport()
    shaping: Shaping = Shaping()
    credit: Credit = Credit()
    routing: Routing = PlainRouting()
    importance: Importance = Importance()
    aggregation: Aggregation = Aggregation()

    @model_validator(mode="after")
    def _combinations_that_cannot_learn(self) -> MethodSpec:
        if self.objective.route == "direct" and self.support.kind == "sampled":
            raise ValueError(
                "support.kind 'sampled' with objective.route 'direct' differentiates log pi - log p on one token, "
                "whose expected gradient is zero; use support.kind 'full', or objective.route 'log_ratio'"
            )
        if self.objective.route == "log_ratio" and self.support.kind != "sampled":
            raise ValueError(
                f"objective.route 'log_ratio' scores the sampled token only, not support.kind '{self.support.kind}'; "
                "use support.kind 'sampled', or the exact expectation of the same update: objective {route: direct, "
                "divergence: reverse_kl}"
            )
        plain = self.credit == Credit() and self.routing.kind == "plain" and self.shaping.kind == "none"
        if self.objective.route == "direct" and not plain:
            raise ValueError(
                "shaping, credit and routing act on the policy-gradient signal of objective.route 'log_ratio'; "
                "a direct loss has none: leave them at their defaults, or use objective.route 'log_ratio'"
            )
        if self.shaping.kind != "none" and self.credit.baseline == "expected":
            raise ValueError(
                "credit.baseline 'expected' is the expectation of the unshaped log-ratio; with shaping.kind "
                f"'{self.shaping.kind}' use baseline 'none', or shaping.kind 'none'"
            )
        if self.credit.baseline == "expected" and self.credit.estimator != "immediate":
            raise ValueError(
                "credit.baseline 'expected' is the expectation of the immediate log-ratio; with credit.estimator "
                f"'{self.credit.estimator}' use baseline 'none'"
            )
        return self

    def warnings(self) -> list[str]:
        """Known biases of an accepted combination, in sentences that are stored on the run."""
        found = []
        objective = self.objective
        if isinstance(objective, DirectObjective) and objective.divergence == "jsd" and objective.beta in (0.0, 1.0):
            found.append(
                f"objective.beta {objective.beta} is the end of the JSD family: "
                f"trained as {objective.effective_divergence}, whose scale differs from beta near the end"
            )
        if self.credit.discount > 0.5:
            found.append(
                "log-ratio returns are negative on average, so crediting the future rewards ending early: watch the "
                "completion length (credit.estimator immediate has no such bias)"
            )
        return found
