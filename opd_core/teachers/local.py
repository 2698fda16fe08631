"""A teacher in the trainer's own process: one prefill, completion rows only, never a generated token."""

from __future__ import annotations

import torch

from opd_core.models import LanguageModel
from opd_core.objective.targets import HiddenTarget
from opd_core.rollout import Rollouts, completion_hidden, micro_batches


@torch.no_grad()
def score(teacher: LanguageModel, rollouts: Rollouts, *, micro_tokens: int) -> HiddenTarget:
    """The teacher's distributions at the N states where the student wrote a token, as hidden states with a head.

    Logits are projected later, chunk by chunk, beside the student's: [N, H] is kept, [N, V] never is.
    """
    groups = micro_batches(rollouts, micro_tokens)
    parts = [completion_hidden(teacher.trunk, piece) for group in groups for piece in group]
    return HiddenTarget(torch.cat(parts), teacher.head)
