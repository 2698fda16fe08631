"""The direct route: a divergence between student and teacher at each state, differentiated at the student's logits.

On one sampled token (support.kind sampled) the divergence is replaced by an estimator whose direct gradient, in
expectation over y ~ pi, is that of the divergence: k2 = r^2 / 2 for the reverse KL, with coefficient r on log pi(y);
k3 = u - 1 - log u for the forward KL, with coefficient u - 1, u = p / pi. k1 has none and is refused.
"""

from __future__ import annotations

import torch

from opd_core.objective.draft import DivergenceTerm, Draft, mean, share
from opd_core.objective.feedback import Feedback
from opd_core.objective.importance import importance_weights
from opd_core.objective.support import choose_tokens, logp_of, rest
from opd_core.spec import MethodSpec
from opd_core.spec.variables.objective import DirectObjective
from opd_core.spec.variables.support import SampledSupport, TopKSupport

# k3's coefficient is p/pi - 1: one token that the student almost never writes must not carry the whole update.
_LARGEST_LOG_RATIO = 10.0


def direct_draft(objective: DirectObjective, method: MethodSpec, feedback: Feedback) -> Draft:
    """One divergence term, over the whole vocabulary or over the support's tokens; or the sampled estimator."""
    support = method.support
    if isinstance(support, SampledSupport):
        return _sampled(support, method, feedback)
    weight = feedback.log_ratio.new_ones(int(feedback.mask.sum()))
    kind = objective.effective_divergence
    term = DivergenceTerm(
        kind,
        weight,
        feedback.teacher,
        parameter=objective.parameter_of(kind),
        target_temperature=feedback.context.effective_teacher_temperature,
        excluded=feedback.context.special_ids if support.special_tokens == "exclude" else (),
    )
    if not isinstance(support, TopKSupport):
        return Draft(divergences=(term,))
    candidates = feedback.candidates(support.k, without_special=support.special_tokens == "exclude")
    tokens = choose_tokens(support.kind, candidates, support.mass)
    sizes = tokens.keep.sum(1)
    statistics = {"support_size": mean(sizes.float())}
    for model in ("student", "teacher"):
        statistics[f"support_{model}_tail"] = mean(rest(logp_of(support.kind, candidates, model), tokens))
    if support.remainder == "renormalised":
        # One token renormalised is log 1 - log 1: the row says nothing.
        statistics["support_blind"] = share(sizes <= 1, torch.ones_like(sizes, dtype=torch.bool))
    term = DivergenceTerm(**{**vars(term), "tokens": tokens, "remainder": support.remainder})
    return Draft(divergences=(term,), statistics=statistics)


def _sampled(support: SampledSupport, method: MethodSpec, feedback: Feedback) -> Draft:
    log_ratio = feedback.log_ratio[feedback.mask]
    coefficient = log_ratio if support.estimator == "k2" else log_ratio.clamp(max=_LARGEST_LOG_RATIO).expm1()
    weights, statistics = importance_weights(method.importance, feedback, coefficient)
    return Draft({support.estimator: weights * coefficient}, statistics=statistics)
