"""Where probability mass goes when a sampled token is suppressed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from opd_core.spec.base import Spec

Weighting = Literal["teacher", "deficit", "geometric"]


class PlainRouting(Spec):
    """What softmax does by itself: mass goes to what the student already likes."""

    kind: Literal["plain"] = "plain"


class CounterfactualRouting(Spec):
    """CR-OPD: a suppressed token's mass goes to teacher-supported, student-reachable alternatives."""

    kind: Literal["counterfactual"] = "counterfactual"
    trigger: Literal["log_ratio", "probability"] = Field(
        "log_ratio",
        description="A token is suppressed where r < -threshold, or where p(y) - pi(y) < -threshold.",
    )
    threshold: float = Field(0.0, ge=0.0, description="In nats, or in probability.")
    magnitude: Literal["log_ratio", "advantage"] = Field(
        "log_ratio",
        description="How much is moved: |r|, or |A| where A < 0 as well (with credit that is not plain and immediate "
        "the two differ in sign).",
    )
    student_top_k: int = Field(16, ge=1, le=1024, description="Reachable: among the student's favourites.")
    teacher_top_k: int = Field(8, ge=1, le=1024, description="Supported: among the teacher's favourites.")
    weighting: Weighting = Field(
        "teacher", description="teacher = p(v); deficit = p(v) - pi(v); geometric = p(v)^beta pi(v)^(1 - beta)."
    )
    beta: float = Field(0.5, ge=0.0, le=1.0, description="geometric only.")
    strength: float = Field(1.0, ge=0.0, le=1.0, description="1 = all of it is routed, 0 = plain.")
    fallback: Literal["abstain", "plain", "down_weight", "forward_kl"] = Field(
        "plain",
        description="Where no alternative qualifies: say nothing, suppress as softmax does, do that at fallback_weight "
        "of its size, or forward KL on the teacher's favourites (with a tail bucket) at fallback_weight.",
    )
    fallback_weight: float = Field(0.5, gt=0.0, le=1.0)


class AopdRouting(Spec):
    """AOPD (arXiv 2605.06387): where the teacher gives a token less than the student, forward KL takes over."""

    kind: Literal["aopd"] = "aopd"
    k: int = Field(16, ge=1, le=1024, description="The teacher's favourites.")
    margin: float = Field(
        1e-3,
        ge=-1.0,
        le=1.0,
        description="Fires where p(y) - pi(y) <= -margin. 0 is the paper's, which also fires at equality.",
    )
    form: Literal["tail", "raw"] = Field(
        "tail", description="tail = with a bucket for the rest; raw = the paper's sum over k, divided by k."
    )
    weight: float = Field(1.0, gt=0.0, le=100.0)


class ApoRouting(Spec):
    """APO (arXiv 2602.05717): a suppressed token is pushed, an anchor's other favourites are pulled up."""

    kind: Literal["apo"] = "apo"
    anchor: Literal["teacher", "reference"] = "teacher"
    push: float = Field(1.05, ge=0.0, le=10.0)
    pull: float = Field(0.1, ge=0.0, le=10.0)
    k: int = Field(8, ge=1, le=1024)


class OutlierRouting(Spec):
    """TrOPD (arXiv 2606.01249): tokens with little trust min(p / pi, 1) are handled apart."""

    kind: Literal["outlier"] = "outlier"
    trust: float = Field(0.1, gt=0.0, lt=1.0, description="Outliers have p(y) / pi(y) below this.")
    handling: Literal["clip", "mask", "forward_kl"] = Field(
        "forward_kl",
        description="clip = the signal stops at log(trust); mask = no force; forward_kl = on the teacher's favourites, "
        "with a tail bucket.",
    )
    k: int = Field(16, ge=1, le=1024)
    weight: float = Field(1.0, gt=0.0, le=100.0)


Routing = Annotated[
    PlainRouting | CounterfactualRouting | AopdRouting | ApoRouting | OutlierRouting, Field(discriminator="kind")
]
