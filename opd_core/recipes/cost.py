"""What a method costs beside what every method does: the student's forward and backward, the teacher's forward."""

from __future__ import annotations

from opd_core.spec import MethodSpec
from opd_core.spec.variables.gates import EopdGate
from opd_core.spec.variables.objective import TeacherTarget
from opd_core.spec.variables.routing import AopdRouting, CounterfactualRouting, OutlierRouting
from opd_core.spec.variables.support import SampledSupport


def cost(method: MethodSpec) -> tuple[str, ...]:
    """Short phrases: what the loss reads of the vocabulary, then what comes on top."""
    reads = (
        "the loss reads both models' heads over the whole vocabulary"
        if _holds_a_divergence(method)
        else "the loss reads the student's head, and single numbers of the teacher's"
    )
    extras = {
        "a forward of the student at the start of the run": "reference" in method.needs,
        "a second comparison over the whole vocabulary, with the target": not isinstance(
            method.objective.target, TeacherTarget
        ),
        "several samples per prompt": "group" in method.needs,
        "a verifier's reward for every answer": "reward" in method.needs,
        "a critic's head on the student's trunk, with an optimizer of its own": "critic" in method.needs,
    }
    return (reads, *(phrase for phrase, paid in extras.items() if paid))


def _holds_a_divergence(method: MethodSpec) -> bool:
    routing = method.routing
    return (
        not isinstance(method.support, SampledSupport)
        or (isinstance(routing, AopdRouting) and routing.form == "tail")
        or (isinstance(routing, CounterfactualRouting) and routing.fallback == "forward_kl")
        or (isinstance(routing, OutlierRouting) and routing.handling == "forward_kl")
        or any(isinstance(gate, EopdGate) for gate in method.gates)
    )
