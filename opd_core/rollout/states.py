"""Hidden states at the states that the student visited: one per token it wrote, and the one after the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from opd_core.models import position_ids
from opd_core.rollout.rollouts import Rollouts

# A new piece begins where sequences are this much longer than the piece's shortest, once the piece is worth a forward.
_STRETCH = 1.25
WORTH_A_FORWARD = 1024


@dataclass(frozen=True)
class Visited:
    """Last hidden states of a trunk on B rollouts with N completion tokens."""

    rows: Tensor  # [N, H] from which each action is predicted, row-major over the action mask
    ends: Tensor  # [B, H] after the last completion token: where a truncated rollout would have gone on


Read = Callable[[nn.Module, Rollouts], Visited]


def visit(trunk: nn.Module, rollouts: Rollouts) -> Visited:
    """One prefill over prompt and completion."""
    ids, attention, states = rollouts.sequences()
    output = trunk(
        input_ids=ids,
        attention_mask=attention.long(),
        position_ids=position_ids(attention),
        use_cache=False,
    )
    hidden = output.last_hidden_state
    last = attention.sum(1) - 1
    return Visited(hidden[states], hidden[torch.arange(len(rollouts), device=hidden.device), last])


def visit_all(trunk: nn.Module, pieces: Sequence[Rollouts], read: Read = visit) -> Visited:
    """Each piece of a batch read for itself (one prefill), together in their order."""
    parts = [read(trunk, piece) for piece in pieces]
    return Visited(torch.cat([part.rows for part in parts]), torch.cat([part.ends for part in parts]))


def completion_hidden(trunk: nn.Module, rollouts: Rollouts) -> Tensor:
    """The [N, H] rows of ``visit``."""
    return visit(trunk, rollouts).rows


def micro_batches(rollouts: Rollouts, micro_tokens: int) -> list[list[Rollouts]]:
    """Cut a batch into pieces of similar length, in groups whose padded size stays within ``micro_tokens``.

    A group is what memory holds at a time (one sequence at least); its pieces only save padding. Together they are the
    batch in its own order, so sort it by length first (``by_length``).
    """
    spans = rollouts.spans.tolist()
    groups: list[list[Rollouts]] = [[]]
    start, widest, used = 0, 0, 0  # of the open piece, and of the group before it
    for row, span in enumerate(spans):
        padded = widest * (row - start)
        stretched = span > _STRETCH * spans[start] and padded >= WORTH_A_FORWARD
        full = row > start and used + max(widest, span) * (row + 1 - start) > micro_tokens
        if stretched or full:
            groups[-1].append(rollouts.select(slice(start, row)))
            used += padded
            start, widest = row, 0
        if full or (stretched and used + span > micro_tokens):
            groups.append([])
            used = 0
        widest = max(widest, span)
    groups[-1].append(rollouts.select(slice(start, len(spans))))
    return groups


def by_length(rollouts: Rollouts) -> Tensor:
    """Indices [B] that sort the sequences by prompt + completion length; equal lengths keep their order."""
    return rollouts.spans.argsort(stable=True)
