"""What the student is pulled towards: the teacher, or a geometric path between it, the student and the reference.

trust_region  q ~ p^(1-w) anchor^w            SDPO's trust region (arXiv 2601.20802)
veto          q ~ p pi^b                      arXiv 2601.07155
extrapolated  q ~ p^s reference^(1-s)         G-OPD, ExOPD (arXiv 2602.12125): r = s log p/ref - log pi/ref, up to a
                                              constant of the state, which is a baseline
"""

from __future__ import annotations

from opd_core.objective.feedback import Feedback, require
from opd_core.objective.targets import GeometricTarget, Target
from opd_core.spec.variables.objective import (
    ExtrapolatedTarget,
    Objective,
    TrustRegionTarget,
    VetoTarget,
)


def aim(objective: Objective, feedback: Feedback) -> Feedback:
    """The feedback, measured against the objective's target."""
    target, context = objective.target, feedback.context
    own, theirs = context.temperature, context.effective_teacher_temperature

    def reference() -> Target:
        return require(context.reference, "the student at the start of the run", f"objective.target '{target.kind}'")

    if isinstance(target, TrustRegionTarget):
        anchor = feedback.student if target.anchor == "student" else reference()
        return feedback.toward(
            GeometricTarget(((1.0 - target.weight, feedback.teacher, theirs), (target.weight, anchor, own)))
        )
    if isinstance(target, VetoTarget):
        return feedback.toward(GeometricTarget(((1.0, feedback.teacher, theirs), (target.beta, feedback.student, own))))
    if isinstance(target, ExtrapolatedTarget):
        return feedback.toward(
            GeometricTarget(((target.scale, feedback.teacher, theirs), (1.0 - target.scale, reference(), own)))
        )
    return feedback
