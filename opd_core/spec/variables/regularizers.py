"""What keeps the student from drifting, and what a verifier says beside the teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from opd_core.spec.base import Spec

Normalise = Annotated[
    Literal["group_std", "group_mean"],
    Field(description="Rewards less the mean of their prompt's samples; group_std = over their deviation as well."),
]


class ReferenceKl(Spec):
    """Divergence from the student at the start of the run."""

    kind: Literal["reference_kl"] = "reference_kl"
    weight: float = Field(0.01, gt=0.0, le=100.0)
    direction: Literal["reverse", "forward"] = Field(
        "reverse", description="reverse = KL(student || reference), forward = KL(reference || student)."
    )


class EntropyBonus(Spec):
    """Minus the student's entropy: keeps its choices open."""

    kind: Literal["entropy"] = "entropy"
    weight: float = Field(0.01, gt=0.0, le=100.0)


class BehaviourTrustRegion(Spec):
    """KL(student || mu) to the policy that wrote the rollout, through its k2 gradient on the sampled tokens."""

    kind: Literal["trust_region"] = "trust_region"
    weight: float = Field(0.1, gt=0.0, le=100.0)


class GoldenData(Spec):
    """Rows taken from data are imitated (cross-entropy), all others distilled. Needs the origin of the rows."""

    kind: Literal["golden"] = "golden"
    weight: float = Field(0.1, gt=0.0, le=100.0)


class Reward(Spec):
    """The verifier's advantage is added to the teacher's: KDRL (arXiv 2506.02208), slime, MiMo.

    A = distillation_weight x A_distillation + weight x (R - mean of its group) (/ deviation of its group).
    """

    kind: Literal["reward"] = "reward"
    weight: float = Field(1.0, gt=0.0, le=100.0)
    distillation_weight: float = Field(1.0, ge=0.0, le=100.0, description="0 = the verifier alone.")
    normalise: Normalise = "group_std"


class RewardSign(Spec):
    """RLSD (arXiv 2604.03128): the verifier gives the direction, the teacher the size.

    A = A_reward x clip((p / pi)^sign(A_reward), 1 - epsilon, 1 + epsilon).
    """

    kind: Literal["reward_sign"] = "reward_sign"
    epsilon: float = Field(0.2, gt=0.0, lt=1.0)
    normalise: Normalise = "group_std"


Regularizer = Annotated[
    ReferenceKl | EntropyBonus | BehaviourTrustRegion | GoldenData | Reward | RewardSign, Field(discriminator="kind")
]
