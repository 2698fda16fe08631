"""Gates and weights: which tokens and trajectories speak, and how loudly.

Each gate is a weight per token, >= 0; they multiply. Time passes at a closed gate all the same: the clock is the action
mask alone. A gate may also add a force of its own (EOPD's forward KL, SCOPE's imitation). Every gate reports the budget
that it really used: the share of tokens it lets speak, and its mean weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opd_core.objective.draft import Draft, mean, share
from opd_core.objective.feedback import unpack
from opd_core.objective.gates import entropy, position, selection, trajectory
from opd_core.objective.gates.seen import Opened, Seen
from opd_core.spec.variables.gates import Gate, RandomGate

_RULES: dict[str, Callable[[Any, Seen], Opened]] = {
    "entropy": entropy.by_entropy,
    "eopd": entropy.eopd,
    "tip": selection.tip,
    "ta_opd": selection.ta_opd,
    "selectkd": selection.selectkd,
    "overlap": selection.overlap,
    "window": position.window,
    "prefix_weight": position.prefix_weight,
    "prune": position.prune,
    "fire": trajectory.fire,
    "scope": trajectory.scope,
    "agreement": trajectory.agreement,
    "sequence": trajectory.sequence,
    "random": selection.at_random,
}


@dataclass(frozen=True)
class Gated:
    """The product of all gates [B, T] (0 off the mask), each by its name, and the forces that gates add."""

    weights: Tensor
    by_name: Mapping[str, Tensor]
    added: Draft
    statistics: Mapping[str, float]


def apply_gates(gates: Sequence[Gate], seen: Seen) -> Gated:
    """All gates of a method on one batch."""
    mask = seen.feedback.mask
    total = mask.to(seen.feedback.log_ratio.dtype)
    by_name: dict[str, Tensor] = {}
    added, statistics = Draft(), {}
    for gate in gates:
        opened = _RULES[gate.kind](gate, seen)
        weights = opened.weights
        if not isinstance(gate, RandomGate) and gate.control == "random":
            weights = _shuffled(weights, seen)
        packed = weights[mask]
        statistics[f"gate_{gate.kind}_share"] = share(packed > 0, torch.ones_like(packed, dtype=torch.bool))
        statistics[f"gate_{gate.kind}_weight"] = mean(packed)
        by_name[gate.kind] = torch.where(mask, weights, 0.0)
        total = total * by_name[gate.kind]
        added = added.plus(opened.added)
    return Gated(total, by_name, added, statistics)


def _shuffled(weights: Tensor, seen: Seen) -> Tensor:
    """The same weights on other tokens of the batch, drawn from the step's own generator."""
    mask = seen.feedback.mask
    packed = weights[mask]
    return unpack(packed[seen.permutation(len(packed)).to(packed.device)], mask)
