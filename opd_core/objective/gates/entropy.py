"""Gates by the models' uncertainty."""

from __future__ import annotations

import torch

from opd_core.objective.draft import Draft, mean
from opd_core.objective.gates.seen import Opened, Seen
from opd_core.objective.routing import favourites_term
from opd_core.spec.variables.gates import EntropyGate, EopdGate


def by_entropy(gate: EntropyGate, seen: Seen) -> Opened:
    """1 where the entropy of one model is above (or at most) the threshold, else 0."""
    feedback = seen.feedback
    entropy = feedback.teacher_entropy if gate.of == "teacher" else feedback.student_entropy
    opened = entropy > gate.threshold if gate.keep == "above" else entropy <= gate.threshold
    return Opened(opened.to(entropy.dtype))


def eopd(gate: EopdGate, seen: Seen) -> Opened:
    """EOPD (arXiv 2603.07079): every token speaks; where H_teacher > threshold, weight x top-k forward KL is added."""
    feedback = seen.feedback
    uncertain = (feedback.teacher_entropy > gate.threshold)[feedback.mask]
    term = favourites_term(feedback, gate.k, uncertain, gate.weight)
    statistics = {"eopd_added": mean(uncertain.float())}
    return Opened(torch.ones_like(feedback.log_ratio), Draft(divergences=(term,), statistics=statistics))
