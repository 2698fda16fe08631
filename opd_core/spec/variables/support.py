"""Which tokens of the vocabulary are compared at a state, and what becomes of the rest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from opd_core.spec.base import Spec

TopKKind = Literal["teacher_top_k", "student_top_k", "union", "intersection", "adaptive"]
Remainder = Literal["tail", "renormalised", "generalised", "raw"]


class _Support(Spec):
    special_tokens: Literal["keep", "exclude"] = Field(
        "keep",
        description="exclude: special tokens other than the ends of a sequence are left out of every comparison, and "
        "get no force where they were sampled (time passes all the same).",
    )


class FullSupport(_Support):
    """The whole vocabulary."""

    kind: Literal["full"] = "full"


class SampledSupport(_Support):
    """Only the token that the student wrote."""

    kind: Literal["sampled"] = "sampled"
    estimator: Literal["k1", "k2", "k3"] = Field(
        "k1",
        description="k1 = the log-ratio, as a policy-gradient signal (route log_ratio). k2 = r^2 / 2 and "
        "k3 = u - 1 - log u, differentiated (route direct): in expectation the gradients of reverse_kl and forward_kl.",
    )


class TopKSupport(_Support):
    """The k most probable tokens of one model or both, and what becomes of the rest (direct route)."""

    kind: TopKKind
    k: int = Field(
        32,
        ge=1,
        le=4096,
        description="union holds up to 2 k tokens, intersection at most k. adaptive: the shortest prefix of the "
        "teacher's ranking, at most k long, that holds `mass` of the student.",
    )
    mass: float = Field(0.95, gt=0.0, lt=1.0, description="adaptive only.")
    remainder: Remainder = Field(
        "tail",
        description="tail = one bucket for all other tokens. renormalised = they are left out, so mass that leaves the "
        "support goes unseen. generalised = sum of p log(p/q) - p + q over the support: the gradient of the "
        "stop-gradient form. raw = the plain sum (forward_kl only; it pushes into the support even at the teacher).",
    )

    @model_validator(mode="after")
    def _one_token_has_no_shape(self) -> TopKSupport:
        if self.remainder == "renormalised" and self.k == 1 and self.kind != "union":
            raise ValueError("remainder 'renormalised' with k 1 is log 1 - log 1 = 0: use k >= 2, or remainder 'tail'")
        return self


Support = Annotated[FullSupport | SampledSupport | TopKSupport, Field(discriminator="kind")]
