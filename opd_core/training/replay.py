"""Rows that earlier students wrote, kept for a few steps with the probabilities under which they were sampled.

All samples of a prompt stay together, so that methods which compare them can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from opd_core.rollout import Rollouts, join
from opd_core.spec.rollout import Replay as ReplaySpec
from opd_core.tasks import Problem
from opd_core.training.states import STUDENT, Written

_DRAW = 0x4E91A7


@dataclass(frozen=True)
class _Kept:
    """The rows of one prompt at one step."""

    step: int
    problem: int
    rollouts: Rollouts
    begun: list[list[int]]


class Replay:
    """``draw`` gives old rows for a step, ``keep`` takes its fresh ones; ``dropped`` counts what grew too old."""

    def __init__(self, spec: ReplaySpec, problems: Sequence[Problem], pad_id: int) -> None:
        self._spec = spec
        self._by_id = {problem.id: problem for problem in problems}
        self._pad_id = pad_id
        self._kept: list[_Kept] = []
        self.dropped = 0

    def wanted(self, prompts: int) -> int:
        """How many of a step's prompts are replayed: their share, as far as there are old ones; one stays fresh."""
        return min(round(self._spec.share * prompts), len(self._kept), prompts - 1)

    def draw(self, count: int, *, seed: int, step: int) -> Written | None:
        """Rows of ``count`` kept prompts, drawn without replacement; None for none. Call before ``keep``."""
        if not count:
            return None
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step, _DRAW))))
        chosen = [self._kept[i] for i in sorted(generator.choice(len(self._kept), size=count, replace=False).tolist())]
        rollouts = join([kept.rollouts for kept in chosen], self._pad_id)
        sizes = torch.tensor([len(kept.rollouts) for kept in chosen])
        device = rollouts.tokens.device
        age = torch.tensor([step - kept.step for kept in chosen]).repeat_interleave(sizes).to(device)
        return Written(
            [self._by_id[kept.problem] for kept in chosen for _ in range(len(kept.rollouts))],
            rollouts,
            torch.arange(count).repeat_interleave(sizes).to(device),
            torch.full_like(age, STUDENT),
            age,
            [ids for kept in chosen for ids in kept.begun],
        )

    def keep(self, fresh: Written, *, step: int) -> None:
        """Keep the prompts whose rows the student wrote; forget those that the next step may not use any more."""
        for group in fresh.group.unique().tolist():
            rows = (fresh.group == group).nonzero()[:, 0]
            if bool((fresh.origin[rows] == STUDENT).all()):
                own = fresh.reorder(rows)
                self._kept.append(_Kept(step, own.problems[0].id, own.rollouts.select(slice(None)), own.begun))
        young = [kept for kept in self._kept if step + 1 - kept.step <= self._spec.max_age]
        self.dropped += len(self._kept) - len(young)
        self._kept = young

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, as tensors; empty for an empty buffer."""
        if not self._kept:
            return {}
        joined = join([kept.rollouts for kept in self._kept], self._pad_id)
        begun = [ids for kept in self._kept for ids in kept.begun]
        return {
            "prompts": joined.prompts,
            "prompt_mask": joined.prompt_mask,
            "tokens": joined.tokens,
            "mask": joined.mask,
            "behaviour_logp": joined.behaviour_logp,
            "truncated": joined.truncated,
            "present": joined.present,
            "steps": torch.tensor([kept.step for kept in self._kept]),
            "problems": torch.tensor([kept.problem for kept in self._kept]),
            "rows": torch.tensor([len(kept.rollouts) for kept in self._kept]),
            "begun_lengths": torch.tensor([len(ids) for ids in begun]),
            "begun": torch.tensor([token for ids in begun for token in ids], dtype=torch.long),
            "dropped": torch.tensor(self.dropped),
        }

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Put back what ``state`` gave."""
        if not state:
            return
        state = {"present": state["mask"], **state}  # before there were environments only the student wrote
        joined = Rollouts(**{field.name: state[field.name].to(device) for field in fields(Rollouts)})
        begun = [ids.tolist() for ids in state["begun"].split(state["begun_lengths"].tolist())]
        start = 0
        for step, problem, rows in zip(*(state[name].tolist() for name in ("steps", "problems", "rows")), strict=True):
            span = slice(start, start + rows)
            self._kept.append(_Kept(step, problem, joined.select(span), begun[span]))
            start += rows
        self.dropped = int(state["dropped"])


def beside(fresh: Written, old: Written | None, pad_id: int) -> Written:
    """Fresh rows and old ones as one batch; the old prompts are groups of their own."""
    if old is None:
        return fresh
    return Written(
        [*fresh.problems, *old.problems],
        join([fresh.rollouts, old.rollouts], pad_id),
        torch.cat([fresh.group, old.group + int(fresh.group.max()) + 1]),
        torch.cat([fresh.origin, old.origin]),
        torch.cat([fresh.age, old.age]),
        [*fresh.begun, *old.begun],
        fresh.teacher_begun,
    )
