"""The log-ratio route: a signal on the sampled token, credited over time, then routed.

signal      log p(y) - log pi(y), or the weight of another f-divergence (signal.py), shaped (shaping.py)
credit      summed over time, minus a baseline or a critic's value (credit.py, gae.py)
importance  for rollouts that another policy wrote (importance.py)
routing     where the mass of suppressed tokens goes (routing.py)
"""

from __future__ import annotations

import math

from torch import Tensor

from opd_core.objective.credit import Credited, returns_credit
from opd_core.objective.draft import Draft
from opd_core.objective.feedback import Feedback
from opd_core.objective.gae import gae_credit
from opd_core.objective.importance import importance_weights
from opd_core.objective.routing import Suppression, apply_routing
from opd_core.objective.shaping import shape
from opd_core.objective.signal import signal
from opd_core.objective.state import PlanState
from opd_core.objective.verifier import signed_coefficients
from opd_core.spec import MethodSpec
from opd_core.spec.variables.objective import LogRatioObjective
from opd_core.spec.variables.regularizers import RewardSign
from opd_core.spec.variables.routing import OutlierRouting


def log_ratio_draft(
    objective: LogRatioObjective, method: MethodSpec, feedback: Feedback, state: PlanState
) -> tuple[Draft, Credited, Tensor]:
    """(the distillation's forces, the credit behind them, importance weights [N])."""
    mask = feedback.mask
    divergence = objective.effective_divergence
    rewards = shape(
        signal(divergence, feedback.log_ratio, objective.parameter_of(divergence)),
        method.shaping,
        student_logp=feedback.student_logp,
        teacher_logp=feedback.teacher_logp,
    )
    routing = method.routing
    if isinstance(routing, OutlierRouting) and routing.handling == "clip":
        rewards = rewards.clamp(min=math.log(routing.trust))
    if method.credit.estimator == "gae":
        credited = gae_credit(method.credit, rewards, feedback, state)
    else:
        credited = returns_credit(method.credit, rewards, feedback)
    components = {name: part[mask] for name, part in credited.parts.items()}
    for rule in method.regularizers:
        if isinstance(rule, RewardSign):
            components = {"reward_sign": signed_coefficients(rule, feedback)}
    importance, statistics = importance_weights(
        method.importance, feedback, sum(components.values(), start=0.0 * rewards[mask])
    )
    draft = apply_routing(routing, feedback, Suppression(components, rewards[mask], importance))
    return draft.plus(Draft(statistics={**credited.statistics, **statistics})), credited, importance
