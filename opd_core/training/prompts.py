"""The order of the training problems: a function of (seed, position), so that a cursor is all there is to store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from opd_core.tasks import Problem


class PromptOrder:
    """Endless passes over the problems, each pass in its own order; ``cursor`` counts problems handed out."""

    def __init__(self, problems: Sequence[Problem], *, seed: int, cursor: int = 0) -> None:
        self._problems = problems
        self._seed = seed
        self._order: tuple[int, np.ndarray] | None = None
        self.cursor = cursor

    def take(self, count: int) -> list[Problem]:
        """The next ``count`` problems."""
        taken = [self._at(self.cursor + i) for i in range(count)]
        self.cursor += count
        return taken

    def _at(self, position: int) -> Problem:
        epoch, index = divmod(position, len(self._problems))
        if self._order is None or self._order[0] != epoch:
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((self._seed, epoch))))
            self._order = (epoch, generator.permutation(len(self._problems)))
        return self._problems[int(self._order[1][index])]
