"""Rollouts of one prompt have begun with the same: it is read once, and each goes on from its keys and values.

Without gradients only. The keys and values of a whole piece are held at a time, where a plain forward holds those of
one layer.
"""

from __future__ import annotations

import torch
from torch import nn

from opd_core.models import LanguageModel, position_ids
from opd_core.rollout.fixed import FixedEngine
from opd_core.rollout.rollouts import Rollouts
from opd_core.rollout.states import WORTH_A_FORWARD, Visited, visit


def can_share(lm: LanguageModel) -> bool:
    """Whether all that the family remembers of a prompt are plain keys and values, whatever comes after it."""
    return FixedEngine.supports(lm)  # asks the same


@torch.no_grad()
def visit_sharing(trunk: nn.Module, rollouts: Rollouts, worth: int = WORTH_A_FORWARD) -> Visited:
    """``visit``, by reading each distinct prompt of the piece once where that saves ``worth`` padded tokens or more."""
    prompts = rollouts.prompts.masked_fill(~rollouts.prompt_mask, -1)
    distinct, which = prompts.unique(dim=0, return_inverse=True)
    rows, longest = len(rollouts), int(rollouts.spans.max())
    if rows * longest - distinct.numel() - rollouts.tokens.numel() < worth:
        return visit(trunk, rollouts)
    mask = distinct >= 0
    before = trunk(
        input_ids=distinct.clamp(min=0),
        attention_mask=mask.long(),
        position_ids=position_ids(mask),
        use_cache=True,
    )
    cache = before.past_key_values
    cache.batch_select_indices(which)
    attention = torch.cat([mask[which], rollouts.present], 1)
    after = trunk(
        input_ids=rollouts.tokens,
        attention_mask=attention.long(),
        position_ids=position_ids(attention)[:, mask.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )
    # [B, T + 1, H]: the first token is predicted by the end of the prompt.
    hidden = torch.cat([before.last_hidden_state[which, -1:], after.last_hidden_state], 1)
    ends = hidden[torch.arange(rows, device=hidden.device), rollouts.present.sum(1)]
    return Visited(hidden[:, :-1][rollouts.mask], ends)
