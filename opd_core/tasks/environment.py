"""What answers the student in the middle of a rollout, and what was written with its help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Environment:
    """It speaks after a stretch: what the student wrote since the beginning, or since it was last answered.

    Whenever the student writes one of the ids ``asks``, ``answer(stretch)`` gives the ids that are put after it (at
    most ``longest``), or None where nothing was asked. A rollout is answered ``turns`` times at most.
    """

    asks: frozenset[int]
    answer: Callable[[Sequence[int]], list[int] | None]
    turns: int
    longest: int

    def room(self, actions: int) -> int:
        """Tokens that a rollout of so many of the student's own can grow to."""
        return actions + self.turns * self.longest


@dataclass(frozen=True)
class Transcript:
    """What follows a prompt: ``ids``, and which of them are the student's ``own``; the others are an environment's."""

    ids: list[int]
    own: list[bool]

    @property
    def stretch(self) -> list[int]:
        """What the student has written since it was last answered."""
        theirs = [place for place, own in enumerate(self.own) if not own]
        return self.ids[theirs[-1] + 1 :] if theirs else self.ids

    def then(self, more: Transcript) -> Transcript:
        """This one gone on with."""
        return Transcript([*self.ids, *more.ids], [*self.own, *more.own])

    def first(self, actions: int) -> Transcript:
        """So many of its actions, and what stands between them."""
        places = [place for place, own in enumerate(self.own) if own][:actions]
        stop = places[-1] + 1 if places else 0
        return Transcript(self.ids[:stop], self.own[:stop])


class Disagreement(ValueError):
    """A written solution asks the environment, and what stands after it is not its answer."""


def heard(ids: Sequence[int], environment: Environment | None) -> Transcript:
    """A written solution as a transcript: what the environment would have answered is not the student's.

    Raises Disagreement.
    """
    own = [True] * len(ids)
    if environment is None:
        return Transcript(list(ids), own)
    start = place = 0
    while place < len(ids):
        place += 1
        answer = environment.answer(ids[start:place]) if ids[place - 1] in environment.asks else None
        if answer is None:
            continue
        if list(ids[place : place + len(answer)]) != answer:
            raise Disagreement(f"after token {place} there is another answer than the environment's")
        own[place : place + len(answer)] = [False] * len(answer)
        start = place = place + len(answer)
    return Transcript(list(ids), own)
