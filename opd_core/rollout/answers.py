"""What an environment has to say in the rows of a batch that are being written, position by position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opd_core.tasks.environment import Environment

_NOTHING = -1


class Answers:
    """Rows R that still write, at most ``actions`` tokens of their own each."""

    def __init__(
        self, environment: Environment, rows: int, actions: int, device: torch.device, begun: Sequence[list[int]]
    ) -> None:
        """``begun``: ids of each row's first stretch that stand in its prompt."""
        self._environment = environment
        self._begun = list(begun)
        self._asks = torch.tensor(sorted(environment.asks), device=device)
        room = environment.room(actions)
        self._given = torch.full((rows, room), _NOTHING, dtype=torch.long, device=device)  # [R, room] ids to come
        self._start = [0] * rows  # of the stretch that is being written
        self._turns = [environment.turns] * rows
        self._left = torch.full((rows,), actions, device=device)

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """(ids [R], bool [R]: whether the environment speaks there; where it does not the id means nothing)."""
        given = self._given[:, position]
        return given, given != _NOTHING

    def hear(self, tokens: Tensor, position: int, acted: Tensor) -> tuple[Tensor, Tensor]:
        """After ``tokens`` [R, T] were written up to this position, ``acted`` [R] by the student.

        Returns bool [R] each: rows that are answered, and rows that may write no more.
        """
        self._left -= acted.long()
        spent, answered = acted & (self._left <= 0), torch.zeros_like(acted)
        asked = acted & ~spent & torch.isin(tokens[:, position], self._asks)
        for row in asked.nonzero()[:, 0].tolist():
            answer = self._answer([*self._begun[row], *tokens[row, self._start[row] : position + 1].tolist()])
            if answer is None:
                continue
            if not self._turns[row]:  # nobody answers any more: there is nothing to go on from
                spent[row] = True
                continue
            self._given[row, position + 1 : position + 1 + len(answer)] = torch.tensor(answer, device=tokens.device)
            self._begun[row], self._start[row] = [], position + 1 + len(answer)
            self._turns[row] -= 1
            answered[row] = True
        return answered, spent

    def keep(self, rows: Tensor) -> None:
        """Only the rows at these indices go on."""
        self._given, self._left = self._given[rows], self._left[rows]
        kept = rows.tolist()
        self._begun, self._start, self._turns = (
            [of_row[i] for i in kept] for of_row in (self._begun, self._start, self._turns)
        )

    def _answer(self, stretch: list[int]) -> list[int] | None:
        answer = self._environment.answer(stretch)
        if answer is not None and len(answer) > self._environment.longest:
            raise ValueError(
                f"an answer of {len(answer)} tokens, and at most {self._environment.longest} were announced"
            )
        return answer
