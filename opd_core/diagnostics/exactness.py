"""Which numbers of a plan made from records are exact, and why the others are not.

A plan that is made again sees what was recorded: some sequences of the step, some tokens of the vocabulary at each
state, and a critic only if one was trained. What a method makes of anything else is approximate. The reasons follow the
plan: a number inherits those of the numbers that it is made from.
"""

from __future__ import annotations

from dataclasses import dataclass

from opd_core.spec import MethodSpec
from opd_core.spec.variables.gates import Gate, RandomGate
from opd_core.spec.variables.objective import DirectObjective, TeacherTarget
from opd_core.spec.variables.routing import AopdRouting, ApoRouting, CounterfactualRouting, OutlierRouting
from opd_core.spec.variables.support import FullSupport, TopKSupport

Reasons = tuple[str, ...]
"""Nothing = exact."""

_OVER_THE_BATCH = {"tip", "ta_opd", "fire", "scope", "agreement", "sequence", "random"}
_BASELINES_OVER_THE_BATCH = {"batch", "position", "group"}
_BLIND = {"window", "random"}  # gates that look at no score


@dataclass(frozen=True)
class Known:
    """What was recorded of a step. ``favourites``: of each model at each state, special tokens not counted.

    ``temperatures`` of student and teacher; ``critic``, ``behaviour``: whether a critic's values and the sampling
    probabilities were recorded; ``reward_mean``: whether the run kept a running mean of its rewards; ``complete``:
    whether the facts about the whole step were recorded with it.
    """

    sequences: int
    of_sequences: int
    whole_vocabulary: bool
    favourites: int
    temperatures: tuple[float, float]
    behaviour: bool
    critic: bool
    reward_mean: bool
    complete: bool


def exactness(method: MethodSpec, own: MethodSpec, known: Known) -> dict[str, Reasons]:
    """Field -> why it is approximate, for the plan of ``method`` on a step that was trained under ``own``.

    Fields: log_ratio, return, value (with a critic), advantage, gate, gate:NAME for each, coefficient, route, force,
    change.
    """
    return _Inspection(method, own, known).fields()


def exactness_of_recorded(own: MethodSpec, known: Known) -> dict[str, Reasons]:
    """The same for what is derived from the plan that was recorded: force and change. The plan itself is exact."""
    inspection = _Inspection(own, own, known)
    force = inspection.divergences()
    if force or inspection.has_divergence:
        force = _together(force, inspection.gates())
    return {"force": force, "change": _together(force, inspection.rest_of_vocabulary())}


class _Inspection:
    def __init__(self, method: MethodSpec, own: MethodSpec, known: Known) -> None:
        self.method, self.own, self.known = method, own, known

    def fields(self) -> dict[str, Reasons]:
        gates = {f"gate:{gate.kind}": self.gate(gate) for gate in self.method.gates}
        if self.method.support.special_tokens == "exclude":
            gates["gate:special_tokens"] = self.facts()
        return {
            "log_ratio": self.scores(),
            "return": self.scores(),
            **({"value": self.value()} if self.method.credit.estimator == "gae" else {}),
            "advantage": self.advantage(),
            "gate": self.gates(),
            **gates,
            "coefficient": self.coefficient(),
            "route": self.route(),
            "force": self.force(),
            "change": _together(self.force(), self.rest_of_vocabulary()),
        }

    # -- what is not known -------------------------------------------------------------------------------------------

    def facts(self) -> Reasons:
        if self.known.complete:
            return ()
        return ("the step was recorded by an earlier version, without the special tokens and the running statistics",)

    def batch(self) -> Reasons:
        known = self.known
        if known.sequences >= known.of_sequences:
            return ()
        return (f"a statistic of the whole batch, taken from {known.sequences} of its {known.of_sequences} sequences",)

    def rest_of_vocabulary(self) -> Reasons:
        if self.known.whole_vocabulary:
            return ()
        return ("outside of the recorded favourites both models are taken as flat",)

    def favourites(self, k: int) -> Reasons:
        if self.known.whole_vocabulary or k <= self.known.favourites:
            return ()
        return (f"it looks at {k} favourites of a model, {self.known.favourites} were recorded",)

    def scores(self) -> Reasons:
        """The models' scores of the sampled tokens, at the method's temperatures."""
        objective = self.method.objective
        if (objective.temperature, objective.effective_teacher_temperature) == self.known.temperatures:
            return ()
        if self.known.whole_vocabulary:
            return ()
        return (
            "another softmax temperature than the run's: outside of the recorded favourites both models are taken as "
            "flat",
        )

    # -- what the method makes of it ---------------------------------------------------------------------------------

    def signal(self) -> Reasons:
        """The log-ratio to what the student is pulled towards."""
        if isinstance(self.method.objective.target, TeacherTarget):
            return self.scores()
        return _together(self.scores(), self.rest_of_vocabulary())

    def value(self) -> Reasons:
        method, own = self.method, self.own
        if method.credit.estimator != "gae":
            return ()
        found = _together(self.signal(), self.facts())
        if not self.known.critic:
            found = _together(found, ("no critic was trained in this run: one that always says 0 is used",))
        elif (method.credit, method.objective, method.shaping) != (own.credit, own.objective, own.shaping):
            found = _together(found, ("the run's critic was taught under the run's own method",))
        if method.credit.critic.form == "differential" and not self.known.reward_mean:
            found = _together(found, self.batch())
        return found

    def advantage(self) -> Reasons:
        if isinstance(self.method.objective, DirectObjective):
            return ()
        over_batch = self.method.credit.baseline in _BASELINES_OVER_THE_BATCH
        return _together(self.signal(), self.value(), self.batch() if over_batch else ())

    def gate(self, gate: Gate) -> Reasons:
        over_batch = gate.kind in _OVER_THE_BATCH or (not isinstance(gate, RandomGate) and gate.control == "random")
        return _together(
            () if gate.kind in _BLIND else self.signal(),
            self.batch() if over_batch else (),
            self.advantage() if gate.kind == "prefix_weight" else (),
            # EOPD's favourites are those of the force that it adds.
            self.favourites(getattr(gate, "k", 0)) if gate.kind != "eopd" else (),
        )

    def gates(self) -> Reasons:
        special = self.facts() if self.method.support.special_tokens == "exclude" else ()
        return _together(special, *(self.gate(gate) for gate in self.method.gates))

    def sampled(self) -> Reasons:
        """What a coefficient on the sampled token is made of, but for its gates."""
        kinds = {rule.kind for rule in self.method.regularizers}
        weighted = self.method.importance.kind != "none" or "trust_region" in kinds
        routing = self.method.routing
        # Whether a route is empty decides what becomes of the coefficient, unless that stays in any case.
        looks = isinstance(routing, CounterfactualRouting) and routing.fallback != "plain"
        return _together(
            self.advantage(),
            self.signal(),
            self.batch() if kinds & {"reward", "reward_sign"} else (),
            ("how likely the tokens were when they were sampled was not recorded: they count as the student's own",)
            if weighted and not self.known.behaviour
            else (),
            self.destinations() if looks else (),
        )

    @property
    def has_coefficient(self) -> bool:
        return not isinstance(self.method.objective, DirectObjective) or self.method.support.kind == "sampled"

    def coefficient(self) -> Reasons:
        return _together(self.sampled(), self.gates()) if self.has_coefficient else ()

    def destinations(self) -> Reasons:
        routing = self.method.routing
        if isinstance(routing, CounterfactualRouting):
            return self.favourites(max(routing.student_top_k, routing.teacher_top_k))
        if isinstance(routing, AopdRouting | OutlierRouting):
            return self.favourites(routing.k)
        if isinstance(routing, ApoRouting) and routing.anchor == "teacher":
            return self.favourites(routing.k + 1)
        if isinstance(routing, ApoRouting) and not self.known.whole_vocabulary:
            return ("the reference's favourites are looked for among those of student and teacher",)
        return ()

    @property
    def has_route(self) -> bool:
        routing = self.method.routing
        return isinstance(routing, CounterfactualRouting | ApoRouting) or (
            isinstance(routing, AopdRouting) and routing.form == "raw"
        )

    def route(self) -> Reasons:
        return _together(self.sampled(), self.destinations(), self.gates()) if self.has_route else ()

    @property
    def has_divergence(self) -> bool:
        method, routing = self.method, self.method.routing
        return (
            (isinstance(method.objective, DirectObjective) and method.support.kind != "sampled")
            or isinstance(routing, AopdRouting | OutlierRouting)
            or (isinstance(routing, CounterfactualRouting) and routing.fallback == "forward_kl")
        )

    def divergences(self) -> Reasons:
        """The divergence terms, but for the gates on them."""
        method = self.method
        found: Reasons = ()
        if isinstance(method.objective, DirectObjective):
            found = self.signal()
            if isinstance(method.support, FullSupport) or method.support.special_tokens == "exclude":
                found = _together(found, self.rest_of_vocabulary())
            if isinstance(method.support, TopKSupport):
                found = _together(found, self.favourites(method.support.k))
        elif self.has_divergence:
            found = _together(self.signal(), self.destinations())
        for gate in method.gates:
            if gate.kind == "eopd":
                found = _together(found, self.signal(), self.favourites(gate.k))
        if any(rule.kind in ("reference_kl", "entropy") for rule in method.regularizers):
            found = _together(found, self.rest_of_vocabulary())
        return found

    def force(self) -> Reasons:
        gates = self.gates() if self.has_divergence else ()
        return _together(self.scores(), self.coefficient(), self.route(), self.divergences(), gates)


def _together(*reasons: Reasons) -> Reasons:
    return tuple(dict.fromkeys(reason for group in reasons for reason in group))
