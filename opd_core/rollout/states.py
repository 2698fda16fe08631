"""Hidden states at the states that the student visited, one per token it wrote."""

from __future__ import annotations

from torch import Tensor, nn

from opd_core.models import position_ids
from opd_core.rollout.writer import Rollouts

# A new piece begins where sequences are this much longer than the piece's shortest, once the piece is worth a forward.
_STRETCH = 1.25
_WORTH_A_FORWARD = 1024


def completion_hidden(trunk: nn.Module, rollouts: Rollouts) -> Tensor:
    """Last hidden states [N, H] from which each completion token is predicted, N = rollouts.mask.sum(), row-major.

    One prefill over prompt and completion.
    """
    ids, attention, states = rollouts.sequences()
    output = trunk(
        input_ids=ids,
        attention_mask=attention.long(),
        position_ids=position_ids(attention),
        use_cache=False,
    )
    return output.last_hidden_state[states]


def micro_batches(rollouts: Rollouts, micro_tokens: int) -> list[list[Rollouts]]:
    """Cut a batch into pieces of similar length, in groups whose padded size stays within ``micro_tokens``.

    A group is what memory holds at a time (one sequence at least); its pieces only save padding. Together they are the
    batch in its own order, so sort it by length first (``by_length``).
    """
    spans = (rollouts.prompt_mask.sum(1) + rollouts.mask.sum(1)).tolist()
    groups: list[list[Rollouts]] = [[]]
    start, widest, used = 0, 0, 0  # of the open piece, and of the group before it
    for row, span in enumerate(spans):
        padded = widest * (row - start)
        stretched = span > _STRETCH * spans[start] and padded >= _WORTH_A_FORWARD
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
    return (rollouts.prompt_mask.sum(1) + rollouts.mask.sum(1)).argsort(stable=True)
