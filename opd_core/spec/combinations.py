"""Which methods cannot learn and why, which are accepted with a known bias, and where their optimum lies.

Every refusal says what to choose instead. Figures are by exact enumeration (tests/objective, docs/lab.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from opd_core.spec.variables.credit import Credit
from opd_core.spec.variables.gates import EntropyGate, EopdGate, OverlapGate, PruneGate, SelectKdGate, TaOpdGate
from opd_core.spec.variables.objective import (
    DirectObjective,
    ExtrapolatedTarget,
    LogRatioObjective,
    TeacherTarget,
    TrustRegionTarget,
    VetoTarget,
)
from opd_core.spec.variables.regularizers import GoldenData, ReferenceKl, Reward, RewardSign
from opd_core.spec.variables.routing import AopdRouting, ApoRouting, CounterfactualRouting, OutlierRouting
from opd_core.spec.variables.support import FullSupport, SampledSupport, TopKSupport

if TYPE_CHECKING:
    from opd_core.spec.method import MethodSpec

# Which divergence the direct gradient of each single-sample estimator belongs to.
_DIRECT_GRADIENT = {"k2": "reverse_kl", "k3": "forward_kl"}
_REWARD_KINDS = (Reward, RewardSign)


def refusal(method: MethodSpec) -> str | None:
    """Why this method cannot learn (the first reason); None if it can."""
    return next(_refusals(method), None)


def _refusals(method: MethodSpec) -> Iterator[str]:
    objective, support = method.objective, method.support
    if isinstance(objective, DirectObjective):
        yield from _direct_refusals(method, objective)
    else:
        yield from _log_ratio_refusals(method, objective)
    if isinstance(support, TopKSupport) and support.remainder == "raw":
        yield from _raw_refusals(objective)
    yield from _gate_refusals(method)
    yield from _reward_refusals(method)


def _direct_refusals(method: MethodSpec, objective: DirectObjective) -> Iterator[str]:
    support = method.support
    divergence = objective.effective_divergence
    if isinstance(support, SampledSupport):
        if support.estimator == "k1":
            yield (
                "support.kind 'sampled' with objective.route 'direct' differentiates log pi - log p on one token (k1), "
                "whose expected gradient is zero: the teacher cancels; use support.estimator 'k2' (reverse_kl) or 'k3' "
                "(forward_kl), support.kind 'full', or objective.route 'log_ratio'"
            )
        elif divergence != _DIRECT_GRADIENT[support.estimator]:
            yield (
                f"support.estimator '{support.estimator}', differentiated, has the gradient of "
                f"{_DIRECT_GRADIENT[support.estimator]}, not of {divergence}; set objective.divergence to "
                f"'{_DIRECT_GRADIENT[support.estimator]}'"
            )
    plain = method.credit == Credit() and method.routing.kind == "plain" and method.shaping.kind == "none"
    if not plain:
        yield (
            "shaping, credit and routing act on the policy-gradient signal of objective.route 'log_ratio'; "
            "a direct loss has none: leave them at their defaults, or use objective.route 'log_ratio'"
        )


def _log_ratio_refusals(method: MethodSpec, objective: LogRatioObjective) -> Iterator[str]:
    support, credit, shaping, routing = method.support, method.credit, method.shaping, method.routing
    if not isinstance(support, SampledSupport):
        yield (
            f"objective.route 'log_ratio' scores the sampled token only, not support.kind '{support.kind}': a "
            "divergence over several tokens does not depend on the sampled one, so as an advantage its expected "
            "gradient is zero; use support.kind 'sampled', or the exact expectation of the same update: objective "
            "{route: direct, divergence: reverse_kl}"
        )
        return
    if support.estimator != "k1":
        yield (
            f"support.estimator '{support.estimator}' as a policy-gradient signal is blind to the sign of the "
            "log-ratio (cosine to the reverse-KL gradient: k2 0.5 to 0.75, k3 about 0.3); use estimator 'k1', or "
            f"objective {{route: direct, divergence: {_DIRECT_GRADIENT[support.estimator]}}} with the same support"
        )
    divergence = objective.effective_divergence
    if divergence != "reverse_kl":
        if credit.estimator != "immediate" or credit.baseline == "expected":
            yield (
                f"objective.divergence '{divergence}' has no chain rule over time: only the reverse KL of sequences is "
                "the sum of its tokens' log-ratios; use credit {estimator: immediate} without the expected baseline, "
                "or divergence 'reverse_kl'"
            )
        if shaping.kind == "power":
            yield "shaping.kind 'power' replaces the log-ratio; use it with objective.divergence 'reverse_kl'"
    if credit.estimator == "gae" and credit.baseline != "none":
        yield (
            f"credit.estimator 'gae' brings its own baseline, the critic; with credit.baseline '{credit.baseline}' "
            "that would be taken off twice: use baseline 'none'"
        )
    if credit.estimator == "gae" and credit.gamma == 0.0 and credit.critic.form == "per_token":
        yield "credit.critic.form 'per_token' averages over time, of which gamma 0 leaves none; use form 'split'"
    if isinstance(routing, CounterfactualRouting) and routing.trigger == "probability" and routing.threshold >= 1.0:
        yield "routing.threshold 1 or more never fires with trigger 'probability'; it must be below 1"


def _raw_refusals(objective: DirectObjective | LogRatioObjective) -> Iterator[str]:
    divergence = objective.effective_divergence
    if divergence == "reverse_kl":
        yield (
            "support.remainder 'raw' with divergence 'reverse_kl' weighs each token by log(pi/p) + 1: it pushes a "
            "token down unless the teacher gives it e times the student's probability, and is not at rest where "
            "student equals teacher (it collapses into repetition); use remainder 'generalised', which has the "
            "gradient without the 1, or 'tail'"
        )
    elif divergence != "forward_kl":
        yield (
            f"support.remainder 'raw' with divergence '{divergence}' is not a divergence; use remainder 'generalised' "
            "or 'tail'"
        )


def _gate_refusals(method: MethodSpec) -> Iterator[str]:
    kinds = Counter(gate.kind for gate in method.gates)
    if repeated := next((kind for kind, count in kinds.items() if count > 1), None):
        yield f"gates: '{repeated}' is listed twice; a gate may appear once"
    if method.objective.route == "direct" and "prefix_weight" in kinds:
        yield (
            "gates: 'prefix_weight' weighs by the advantages before a token, and a direct loss has none; use "
            "objective.route 'log_ratio', or gate 'window'"
        )
    if method.objective.route == "direct" and "scope" in kinds:
        yield "gates: 'scope' imitates sampled tokens beside a log-ratio update; use objective.route 'log_ratio'"
    if method.aggregation.denominator == "gate_mass" and not method.gates:
        yield "aggregation.denominator 'gate_mass' needs a gate; use 'actions'"


def _reward_refusals(method: MethodSpec) -> Iterator[str]:
    rewards = [regularizer for regularizer in method.regularizers if isinstance(regularizer, _REWARD_KINDS)]
    kinds = Counter(regularizer.kind for regularizer in method.regularizers)
    if repeated := next((kind for kind, count in kinds.items() if count > 1), None):
        yield f"regularizers: '{repeated}' is listed twice; give one of them, with the summed weight"
    if len(rewards) > 1:
        yield "regularizers: 'reward' adds to what 'reward_sign' replaces; use one of them"
    if rewards and method.objective.route == "direct":
        yield (
            f"regularizers: '{rewards[0].kind}' acts on the advantage of sampled tokens, and a direct loss has none; "
            "use objective.route 'log_ratio'"
        )
    if any(isinstance(regularizer, RewardSign) for regularizer in rewards) and method.routing.kind != "plain":
        yield (
            "regularizers: 'reward_sign' replaces the teacher's direction, which routing would follow; use "
            "routing.kind 'plain'"
        )


def warnings(method: MethodSpec) -> list[str]:
    """Known biases of an accepted combination, in sentences that are stored on the run."""
    return list(_warnings(method))


def _warnings(method: MethodSpec) -> Iterator[str]:
    objective, support, credit, routing = method.objective, method.support, method.credit, method.routing
    if objective.divergence == "jsd" and objective.beta in (0.0, 1.0):
        yield (
            f"objective.beta {objective.beta} is the end of the JSD family: "
            f"trained as {objective.effective_divergence}, whose scale differs from beta near the end"
        )
    remedied = credit.estimator == "normalised" or (
        credit.estimator == "gae"
        and (credit.critic.form in ("differential", "per_token") or credit.critic.end_of_sequence == "immediate")
    )
    if credit.discount > 0.5 and not remedied:
        yield (
            "log-ratio returns are negative on average, so crediting the future rewards ending early: watch the "
            "completion length (credit.estimator immediate has no such bias; gae has a differential critic)"
        )
    if credit.estimator == "gae" and credit.critic.form in ("differential", "per_token"):
        yield (
            f"credit.critic.form '{credit.critic.form}' is not the sequence reverse KL any more: length is credited "
            "differently, so watch it in both directions"
        )
    endless = credit.critic.end_of_sequence == "immediate" and credit.critic.form in ("value", "split")
    if credit.estimator == "gae" and credit.gamma == 1.0 and endless:
        yield (
            "credit.critic.end_of_sequence 'immediate' with gamma 1 values sequences that never end: the critic's "
            "target is its own value plus a cost, which has no bound (it diverged in measurements); use gamma below 1, "
            "or credit.critic.form 'differential'"
        )
    if method.shaping.kind != "none" and credit.baseline == "expected":
        yield (
            "credit.baseline 'expected' is the expectation of the unshaped log-ratio: with shaping it stays unbiased, "
            "but need not lower the variance"
        )
    if isinstance(support, TopKSupport):
        if support.remainder == "renormalised":
            yield (
                "support.remainder 'renormalised' does not see mass that leaves the support: watch support_student_tail"
            )
        if support.remainder == "raw":
            yield (
                "support.remainder 'raw' keeps pushing mass into the support where student equals teacher, and can be "
                "negative; remainder 'tail' has neither"
            )
    if isinstance(routing, CounterfactualRouting) and routing.strength > 0:
        yield "counterfactual routing is a deliberate bias relative to the reverse KL: see the cosine of the self-check"
        if routing.magnitude == "log_ratio" and credit.estimator != "immediate":
            yield (
                "routing.magnitude 'log_ratio' moves |r| of a suppressed token whatever credit.estimator "
                f"'{credit.estimator}' says of it; magnitude 'advantage' moves what the credit says"
            )
    if isinstance(routing, AopdRouting) and routing.form == "raw":
        yield "routing.form 'raw' keeps pushing into the teacher's favourites where it fires; form 'tail' does not"
    if any(regularizer.kind == "trust_region" for regularizer in method.regularizers):
        yield (
            "regularizers: 'trust_region' pulls towards the policy that wrote the rollout; with one update per rollout "
            "that is the student itself and the term is zero"
        )
    if reason := shift(method):
        yield f"the update does not come to rest at the teacher: {reason}"


def shift(method: MethodSpec) -> str | None:
    """Why the update does not vanish where student equals teacher; None where it does."""
    return next(_shifts(method), None)


def _shifts(method: MethodSpec) -> Iterator[str]:
    objective, support, routing = method.objective, method.support, method.routing
    if objective.effective_teacher_temperature != objective.temperature:
        yield (
            f"the teacher is read at temperature {objective.effective_teacher_temperature}, the student at "
            f"{objective.temperature}"
        )
    if objective.divergence == "total_variation":
        yield "total_variation has a kink there, so the force keeps its size however near the student is"
    target = objective.target
    if isinstance(target, VetoTarget):
        yield f"with objective.target 'veto' the optimum is teacher^(1 / (1 - {target.beta}))"
    if isinstance(target, ExtrapolatedTarget) and target.scale != 1.0:
        yield f"the optimum is teacher^{target.scale} reference^{1 - target.scale:.4g}"
    if isinstance(target, TrustRegionTarget) and target.anchor == "reference":
        yield f"the optimum is teacher^{1 - target.weight:.4g} reference^{target.weight}"
    if isinstance(support, TopKSupport) and support.remainder == "raw":
        yield "support.remainder 'raw' pushes into the support even there"
    if isinstance(routing, AopdRouting) and routing.form == "raw" and routing.margin <= 0.0:
        yield (
            f"routing.margin {routing.margin} fires there, and routing.form 'raw' pushes into the teacher's favourites"
        )
    for regularizer in method.regularizers:
        yield f"regularizers: '{regularizer.kind}' pulls elsewhere"
    if any(gate.kind == "scope" for gate in method.gates):
        yield "gates: 'scope' imitates right answers whatever the teacher says"


def needs(method: MethodSpec) -> tuple[str, ...]:
    """What the method needs beside the teacher's scores: any of reference, reward, group, origin, critic."""
    objective, routing = method.objective, method.routing
    wanted = []
    if (
        isinstance(objective.target, ExtrapolatedTarget)
        or (isinstance(objective.target, TrustRegionTarget) and objective.target.anchor == "reference")
        or (isinstance(routing, ApoRouting) and routing.anchor == "reference")
        or any(isinstance(regularizer, ReferenceKl) for regularizer in method.regularizers)
    ):
        wanted.append("reference")
    rewarded = any(isinstance(regularizer, _REWARD_KINDS) for regularizer in method.regularizers)
    graded = any(gate.kind in ("scope", "agreement") for gate in method.gates)
    if rewarded or graded:
        wanted.append("reward")
    if rewarded or graded or method.credit.baseline == "group":
        wanted.append("group")
    if any(isinstance(regularizer, GoldenData) for regularizer in method.regularizers):
        wanted.append("origin")
    if method.credit.estimator == "gae":
        wanted.append("critic")
    return tuple(wanted)


def teacher_must_give(method: MethodSpec) -> str:
    """What a teacher has to deliver at each token of the student's, in words."""
    objective, support, gates = method.objective, method.support, method.gates
    if (
        isinstance(support, FullSupport)
        or not isinstance(objective.target, TeacherTarget)
        or objective.effective_teacher_temperature != 1.0
    ):
        return "log-probabilities of the whole vocabulary"
    kinds = {gate.kind for gate in gates}
    tokens = []
    if isinstance(support, SampledSupport) or kinds & {"fire", "scope", "agreement", "sequence"}:
        tokens.append("the sampled token")
    if k := students_favourites(method):
        tokens.append(f"the student's top {k}")
    if k := teachers_favourites(method):
        tokens.append(f"its own top {k}")
    sampled_only = tokens == ["the sampled token"]
    given = [("the log-probability of " if sampled_only else "log-probabilities of ") + _listed(tokens)]
    credit = method.credit
    split = credit.estimator == "gae" and credit.critic.form in ("split", "differential")
    if credit.baseline == "expected" or split or kinds & {"tip", "ta_opd"}:
        given.append("enough of the vocabulary for KL(student || teacher)")
    if kinds & {"eopd", "fire"} or any(isinstance(gate, EntropyGate) and gate.of == "teacher" for gate in gates):
        given.append("enough of the vocabulary for its entropy")
    return "; ".join(given)


def students_favourites(method: MethodSpec) -> int:
    """How many of the student's favourites are compared in the teacher's eyes."""
    support = method.support
    asked = [gate.k for gate in method.gates if isinstance(gate, TaOpdGate)]
    if isinstance(support, TopKSupport) and support.kind in ("student_top_k", "union"):
        asked.append(support.k)
    return max(asked, default=0)


def teachers_favourites(method: MethodSpec) -> int:
    """How many of the teacher's favourites have to be known."""
    support, routing = method.support, method.routing
    asked = [gate.k for gate in method.gates if isinstance(gate, EopdGate | SelectKdGate | OverlapGate | PruneGate)]
    if isinstance(support, TopKSupport) and support.kind != "student_top_k":
        asked.append(support.k)
    if isinstance(routing, CounterfactualRouting):
        asked.append(routing.teacher_top_k)
    elif isinstance(routing, AopdRouting) or (isinstance(routing, OutlierRouting) and routing.handling == "forward_kl"):
        asked.append(routing.k)
    elif isinstance(routing, ApoRouting) and routing.anchor == "teacher":
        asked.append(routing.k + 1)  # the sampled token may be among them, and is no anchor
    return max(asked, default=0)


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
