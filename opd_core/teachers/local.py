"""A model in the trainer's own process reads rollouts: prefill, completion rows only, never a generated token."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from opd_core.models import LanguageModel
from opd_core.objective.targets import HiddenTarget, Target
from opd_core.rollout import Rollouts, can_share, micro_batches, visit, visit_all, visit_sharing


@dataclass(frozen=True)
class Scores:
    """A model's distributions on B rollouts with N completion tokens, as hidden states with a head.

    Logits are projected later, chunk by chunk, beside the student's: [N, H] is kept, [N, V] never is.
    """

    rows: Target  # N rows: at the states where the student wrote a token
    ends: Target  # B rows: after its last token


@torch.no_grad()
def score_with_ends(teacher: LanguageModel, rollouts: Rollouts, *, micro_tokens: int) -> Scores:
    """The teacher reads every rollout once, in pieces of at most ``micro_tokens``; a prompt once for its samples."""
    groups = micro_batches(rollouts, micro_tokens)
    read = visit_sharing if can_share(teacher) else visit
    visited = visit_all(teacher.trunk, [piece for group in groups for piece in group], read)
    return Scores(HiddenTarget(visited.rows, teacher.head), HiddenTarget(visited.ends, teacher.head))
