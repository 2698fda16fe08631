"""What a teacher server is asked and what it answers, whichever server it is.

Token ids go in, so no tokenizer stands between. For each token of a sequence the server answers the log-probability of
that token and of its own favourites, and for the state after the last one those of the token that it would write next.
Some servers also score candidates that they are given, other ones at each token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from opd_core.servers import Server


@dataclass(frozen=True)
class Read:
    """What the server said about one sequence: maps id -> log-probability at each token, and after the last one."""

    tokens: Sequence[Mapping[int, float]]  # at position i: of token i given those before it; empty for the first
    after: Mapping[int, float]


@dataclass(frozen=True)
class Given:
    """Log-probabilities of given candidates, one map for each token; ``read`` counts the tokens sent for them."""

    tokens: Sequence[Mapping[int, float]]
    read: int


class Dialect(Protocol):
    """One kind of server."""

    @property
    def name(self) -> str:
        """Of the software, as users know it."""
        ...

    @property
    def needs(self) -> str:
        """What an operator has to do for given candidates to be scored."""
        ...

    def read(self, ids: Sequence[int], top_k: int) -> Read:
        """Score one sequence. Raises ServerUnreachable, or Unsuitable for what the server refuses."""
        ...

    def score(self, ids: Sequence[int], start: int, candidates: Sequence[Sequence[int]]) -> Given:
        """log p(v | ids[: start + i]) of every v in ``candidates[i]``, in as many requests as that takes.

        ``start`` is at least 1, and no row lists an id twice. Raises ServerUnreachable, or Unsuitable where the server
        does not score given candidates or says less than it was asked.
        """
        ...


def write(server: Server, ids: Sequence[int], max_tokens: int) -> str:
    """Go on greedily from one prompt; the text without special tokens. Every dialect says it alike."""
    return str(server.complete(prompt=list(ids), max_tokens=max_tokens).get("text", ""))
