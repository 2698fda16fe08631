"""Gates by position in the completion, counted on the action clock."""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.objective.feedback import unpack
from opd_core.objective.gates.seen import Opened, Seen
from opd_core.objective.support import among
from opd_core.spec.variables.gates import PrefixWeightGate, PruneGate, WindowGate


def window(gate: WindowGate, seen: Seen) -> Opened:
    """1 on completion tokens start, ..., stop - 1."""
    mask = seen.feedback.mask
    before = mask.cumsum(1) - mask.long()
    if gate.counted_from == "end":
        before = mask.sum(1, keepdim=True) - before - 1
    opened = before >= gate.start
    if gate.stop is not None:
        opened &= before < gate.stop
    return Opened(opened.to(seen.feedback.log_ratio.dtype))


def prefix_weight(gate: PrefixWeightGate, seen: Seen) -> Opened:
    """IW-OPD (arXiv 2606.22600): w_t = 1 + gamma (1 - sum_{j<t} |A_j| / sum_j |A_j|): early tokens weigh more."""
    size = seen.advantages.abs()
    before = size.cumsum(1) - size
    total = size.sum(1, keepdim=True)
    passed = torch.where(total > 0, before / total.clamp(min=torch.finfo(size.dtype).tiny), 0.0)
    return Opened(1.0 + gate.gamma * (1.0 - passed))


def prune(gate: PruneGate, seen: Seen) -> Opened:
    """Prune-OPD (arXiv 2605.07804): w_t = max(0, 1 - decay x incompatible states up to t).

    A state is incompatible where both models' k favourites share less than the threshold. The paper's controller of the
    next rollouts' length is rollout state, not a weight, and is left out; so is the constant that it adds to w.
    """
    feedback = seen.feedback
    bad = unpack((overlap_share(seen, gate.k) < gate.threshold).to(feedback.log_ratio.dtype), feedback.mask)
    return Opened((1.0 - gate.decay * bad.cumsum(1)).clamp(0.0, 1.0))


def overlap_share(seen: Seen, k: int) -> Tensor:
    """[N] share of the student's k favourites that are the teacher's, too."""
    both = seen.feedback.candidates(k)
    return among(both.student.ids, both.teacher.ids).to(seen.feedback.log_ratio.dtype).mean(1)
