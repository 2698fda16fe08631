"""One text in two tokenizations: which tokens cover the same bytes (as in TRL's GOLD trainer, by bytes)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise


def same_spans(ours: Sequence[bytes], theirs: Sequence[bytes], lead: int = 0) -> dict[int, int]:
    """Our token -> their token that begins and ends at the same byte, as positions in the two sequences.

    ``theirs`` has ``lead`` bytes before the text begins. Where the two texts part, nothing behind is the same.
    """
    own = b"".join(ours)
    shared = common_bytes(own, b"".join(theirs)[lead:])
    at = {span: position for position, span in enumerate(_spans(theirs, -lead))}
    return {
        position: at[begin, end]
        for position, (begin, end) in enumerate(_spans(ours, 0))
        if end <= shared and (begin, end) in at
    }


def common_bytes(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def readable(pieces: Sequence[bytes]) -> str:
    """The text that the pieces begin with: up to the first bytes that are no character."""
    whole = b"".join(pieces)
    try:
        return whole.decode()
    except UnicodeDecodeError as error:
        return whole[: error.start].decode()


def _spans(pieces: Sequence[bytes], start: int) -> list[tuple[int, int]]:
    return list(pairwise(accumulate(map(len, pieces), initial=start)))
