"""Where the mass of suppressed tokens landed, at the probed states: with tokens that the teacher supports and the
student can reach, with the student's own favourites, or anywhere.

For a suppressed token (log-ratio below zero) every other token that gained is counted with its gain:

supported   in both models' favourites and liked better by the teacher than by the student (what CR-OPD routes to)
own         among the student's favourites, but not supported
rest        everything else
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_core.diagnostics.probe import Probe
from opd_core.objective.draft import correlation

_FAVOURITES = 16


@torch.no_grad()
def landing(probe: Probe, teacher_logp: Tensor) -> dict[str, float]:
    """Metrics of a measured probe; ``teacher_logp`` [M, V] at its states. {} where no probed token is suppressed.

    ``landing_KIND_supported`` and ``_own`` are shares of all gains: KIND is realised (by the network), predicted (by
    the plan, first order) or plain (what softmax alone would do with the same suppression).
    """
    before, tokens = probe.before, probe.tokens[:, None]
    student_logp = before.clamp(min=1e-30).log()
    log_ratio = teacher_logp - student_logp
    exact = before * (log_ratio - (before * log_ratio).sum(-1, keepdim=True))
    found = {"force_cosine": float(torch.cosine_similarity(probe.push.flatten(), exact.flatten(), dim=0))}
    favourite = teacher_logp.argmax(-1, keepdim=True)
    missed = (favourite != tokens)[:, 0]
    if bool(missed.any()):
        gained = (before + probe.realised).clamp(min=1e-30).log() - student_logp
        found["favourite_gain"] = float(gained.gather(1, favourite)[missed].mean())
    suppressed = (log_ratio.gather(1, tokens) < 0)[:, 0]
    if not bool(suppressed.any()):
        return found
    k = min(_FAVOURITES, before.shape[1])
    own = torch.zeros_like(before, dtype=torch.bool).scatter_(1, before.topk(k).indices, True)
    theirs = torch.zeros_like(own).scatter_(1, teacher_logp.topk(k).indices, True)
    supported = own & theirs & (log_ratio > 0)
    plain = before.scatter(1, tokens, 0.0)
    for kind, change in (("realised", probe.realised), ("predicted", probe.direction), ("plain", plain)):
        gains = change.clamp(min=0.0).scatter(1, tokens, 0.0)[suppressed]
        total = float(gains.sum())
        if total > 0:
            found[f"landing_{kind}_supported"] = float((gains * supported[suppressed]).sum()) / total
            found[f"landing_{kind}_own"] = float((gains * (own & ~supported)[suppressed]).sum()) / total
    others = torch.ones_like(own).scatter_(1, tokens, False)[suppressed]
    found["squeeze"] = correlation(probe.realised[suppressed][others], before[suppressed][others])
    return found
