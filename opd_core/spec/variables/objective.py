"""Route, divergence, temperatures, and the distribution that the student is pulled towards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from opd_core.spec.base import Spec

Divergence = Literal[
    "forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl", "alpha", "total_variation"
]


class TeacherTarget(Spec):
    """The teacher's own distribution."""

    kind: Literal["teacher"] = "teacher"


class TrustRegionTarget(Spec):
    """q ~ teacher^(1 - weight) anchor^weight: a shorter way, with the same end when the anchor is the student."""

    kind: Literal["trust_region"] = "trust_region"
    anchor: Literal["student", "reference"] = Field(
        "student", description="student = the student as it is now (detached); reference = the student at the start."
    )
    weight: float = Field(0.5, gt=0.0, lt=1.0)


class VetoTarget(Spec):
    """q ~ teacher student^beta (Veto, arXiv 2601.07155): tokens need both. The optimum is not the teacher."""

    kind: Literal["veto"] = "veto"
    beta: float = Field(0.5, gt=0.0, lt=1.0)


class ExtrapolatedTarget(Spec):
    """q ~ teacher^scale reference^(1 - scale) (G-OPD, arXiv 2602.12125): beyond the teacher for scale > 1."""

    kind: Literal["extrapolated"] = "extrapolated"
    scale: float = Field(1.25, gt=0.0, le=4.0, description="1 = the teacher; 1.25 was good, 1.5 unstable.")


Target = Annotated[TeacherTarget | TrustRegionTarget | VetoTarget | ExtrapolatedTarget, Field(discriminator="kind")]


class _Objective(Spec):
    beta: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="jsd only: weight of the teacher in the mixture. JSD itself vanishes at the ends: 0 means "
        "forward_kl and 1 means reverse_kl (the loss scale jumps there).",
    )
    alpha: float = Field(0.1, gt=0.0, lt=1.0, description="skew_* only: the integrand never exceeds -log alpha.")
    order: float = Field(
        0.5, gt=0.0, lt=1.0, description="alpha only: towards reverse_kl near 0, towards forward_kl near 1."
    )
    temperature: float = Field(
        1.0, gt=0.0, le=10.0, description="Softmax temperature in the loss (not in sampling), of both models."
    )
    teacher_temperature: float | None = Field(
        None,
        gt=0.0,
        le=10.0,
        description="The teacher's own softmax temperature; null = the same. The optimum is then a sharper or flatter "
        "teacher.",
    )
    target: Target = TeacherTarget()

    @property
    def effective_teacher_temperature(self) -> float:
        """The temperature of the teacher's softmax."""
        return self.temperature if self.teacher_temperature is None else self.teacher_temperature

    def parameter_of(self, divergence: Divergence) -> float:
        """The number that shapes a divergence: beta of the jsd, alpha of the skew KLs, order of the alpha family."""
        return {"jsd": self.beta, "alpha": self.order}.get(divergence, self.alpha)


def _without_ends(divergence: Divergence, beta: float) -> Divergence:
    if divergence != "jsd":
        return divergence
    ends: dict[float, Divergence] = {0.0: "forward_kl", 1.0: "reverse_kl"}
    return ends.get(beta, "jsd")


class DirectObjective(_Objective):
    """A distributional loss between student and teacher at each student-written state."""

    route: Literal["direct"] = "direct"
    divergence: Divergence = Field(
        "forward_kl",
        description="forward_kl = KL(teacher || student); reverse_kl = KL(student || teacher); "
        "jsd = beta KL(teacher || m) + (1 - beta) KL(student || m), m = beta teacher + (1 - beta) student; "
        "skew_forward_kl = KL(teacher || alpha teacher + (1 - alpha) student); "
        "skew_reverse_kl = KL(student || alpha student + (1 - alpha) teacher); "
        "alpha = (1 - sum teacher^order student^(1 - order)) / (order (1 - order)); "
        "total_variation = sum |teacher - student| / 2",
    )

    @property
    def effective_divergence(self) -> Divergence:
        """The divergence that is really applied once the ends of the JSD family are mapped to the KLs."""
        return _without_ends(self.divergence, self.beta)


class LogRatioObjective(_Objective):
    """A policy-gradient update on r_t = log p_teacher(y_t) - log pi_student(y_t), always detached."""

    route: Literal["log_ratio"] = "log_ratio"
    divergence: Divergence = Field(
        "reverse_kl",
        description="The divergence whose gradient the update has in expectation. reverse_kl: the signal is r itself. "
        "Any other f-divergence: w(u) - w(1) with w = u f' - f, u = p / pi (OPD+, arXiv 2606.01039).",
    )

    @property
    def effective_divergence(self) -> Divergence:
        """The divergence whose gradient the signal estimates, the ends of the JSD family mapped to the KLs."""
        return _without_ends(self.divergence, self.beta)


Objective = Annotated[DirectObjective | LogRatioObjective, Field(discriminator="route")]
