"""Gates that pick tokens by what both models say at them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from opd_core.objective.feedback import unpack
from opd_core.objective.gates.position import overlap_share
from opd_core.objective.gates.seen import Opened, Seen
from opd_core.objective.support import among
from opd_core.spec.variables.gates import OverlapGate, RandomGate, SelectKdGate, TaOpdGate, TipGate


def tip(gate: TipGate, seen: Seen) -> Opened:
    """TIP (arXiv 2604.14084): the share of tokens with the largest s = h + d - h d.

    h = student entropy, d = KL(student || teacher), both scaled to [0, 1] between their extremes in the batch:
    uncertain or wrong, or both.
    """
    feedback, mask = seen.feedback, seen.feedback.mask
    h = _scaled(feedback.student_entropy[mask], 0.0, 1.0)
    d = _scaled(feedback.kl[mask], 0.0, 1.0)
    return Opened(unpack(top_share(h + d - h * d, gate.share), mask))


def ta_opd(gate: TaOpdGate, seen: Seen) -> Opened:
    """TA-OPD (arXiv 2605.26844): the share of tokens with the largest disagreement x compatibility.

    Disagreement = KL(student || teacher); compatibility = the teacher's mass on the student's k favourites; both
    clip((z - q05) / (q95 - q05), 0, 1) over the batch.
    """
    feedback, mask = seen.feedback, seen.feedback.mask
    compatible = feedback.candidates(gate.k).student.teacher_logp.exp().sum(1)
    score = _scaled(feedback.kl[mask], 0.05, 0.95) * _scaled(compatible, 0.05, 0.95)
    return Opened(unpack(top_share(score, gate.share), mask))


def selectkd(gate: SelectKdGate, seen: Seen) -> Opened:
    """SelecTKD (arXiv 2510.24021): 1 where the student's favourite is among the teacher's k, else ``otherwise``."""
    both = seen.feedback.candidates(gate.k)
    verified = among(both.student.ids[:, :1], both.teacher.ids)[:, 0]
    weights = seen.feedback.log_ratio.new_full(verified.shape, gate.otherwise).masked_fill(verified, 1.0)
    return Opened(unpack(weights, seen.feedback.mask))


def overlap(gate: OverlapGate, seen: Seen) -> Opened:
    """1 where both models' k favourites share at least the threshold, else 0."""
    opened = overlap_share(seen, gate.k) >= gate.threshold
    return Opened(unpack(opened.to(seen.feedback.log_ratio.dtype), seen.feedback.mask))


def at_random(gate: RandomGate, seen: Seen) -> Opened:
    """A random share of the batch's tokens."""
    mask = seen.feedback.mask
    score = seen.uniform(int(mask.sum())).to(mask.device)
    return Opened(unpack(top_share(score, gate.share).to(seen.feedback.log_ratio.dtype), mask))


def top_share(score: Tensor, share: float) -> Tensor:
    """[N] 1 on the ceil(share x N) largest scores, else 0; among equal scores the earlier token comes first."""
    kept = torch.zeros_like(score)
    kept[score.argsort(descending=True, stable=True)[: math.ceil(share * len(score))]] = 1.0
    return kept


def _scaled(values: Tensor, low: float, high: float) -> Tensor:
    """Values [N] clipped to [0, 1] between two of their quantiles; 0 where they are all the same."""
    if not len(values):
        return values
    ordered = values.sort().values
    bottom, top = (ordered[round(q * (len(ordered) - 1))] for q in (low, high))
    return ((values - bottom) / (top - bottom).clamp(min=torch.finfo(values.dtype).tiny)).clamp(0.0, 1.0)
