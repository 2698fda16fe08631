"""One teacher: a model, what it reads beside the prompt, and which problems it speaks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.models import LanguageModel, adapter_weights, whole
from opd_core.rollout import Rollouts
from opd_core.tasks import Problem, Task
from opd_core.teachers.local import Scores, score_with_ends
from opd_core.teachers.translator import Translator


@dataclass(frozen=True)
class Asked:
    """Rollouts, and what a teacher may know of them: B problems, and a right solution of each where there is one.

    ``begun`` are the ids that others wrote before a row's own tokens: the end of its prompt, whatever a teacher reads
    before it. Empty = none of any row. ``proposed`` [N, K] are ids that the student asks about at each of its tokens,
    for a teacher that does not give whole distributions (objective/proposals.py).
    """

    rollouts: Rollouts
    problems: Sequence[Problem]
    solutions: Sequence[str | None]
    begun: Sequence[Sequence[int]] = ()
    proposed: Tensor | None = None

    def select(self, rows: Sequence[int]) -> Asked:
        """The rows of those indices."""
        proposed = None
        if self.proposed is not None:
            parts = self.proposed.split(self.rollouts.lengths.tolist())
            proposed = torch.cat([parts[row] for row in rows])
        return Asked(
            self.rollouts.reorder(torch.tensor(rows, device=self.rollouts.tokens.device)),
            [self.problems[row] for row in rows],
            [self.solutions[row] for row in rows],
            [self.begun[row] for row in rows] if self.begun else (),
            proposed,
        )

    def beginning(self, row: int) -> Sequence[int]:
        """What others wrote before a row's own tokens."""
        return self.begun[row] if self.begun else ()


@dataclass(frozen=True)
class Voice:
    """``lm`` may be the student itself (its weights as they are now); with ``decay`` it is a moving average of it.

    With a ``translator`` it has a tokenizer of its own.
    """

    path: str  # of its field in the spec
    lm: LanguageModel
    context: str | None = None
    weight: float = 1.0
    tags: frozenset[str] | None = None
    decay: float | None = None
    translator: Translator | None = None

    def speaks_for(self, problem: Problem) -> bool:
        """Whether this teacher is asked about a problem."""
        return self.tags is None or problem.tag in self.tags

    def encode(self, task: Task, problem: Problem, solution: str | None = None) -> list[int]:
        """What it reads before the completion."""
        return read_by(self.task(task), problem, self.context, solution)

    def task(self, task: Task) -> Task:
        """The task as it reads it."""
        return task if self.translator is None else self.translator.task(task)

    def score(self, asked: Asked, task: Task, *, micro_tokens: int) -> tuple[Scores, int]:
        """Its distributions on the student's completions, and the number of tokens that it read."""
        rollouts, prompts = asked.rollouts, []
        if self.context is not None or self.translator is not None:
            prompts = [
                [*self.encode(task, problem, solution), *asked.beginning(row)]
                for row, (problem, solution) in enumerate(zip(asked.problems, asked.solutions, strict=True))
            ]
        if self.translator is not None:
            return self.translator.score(prompts, rollouts, micro_tokens=micro_tokens)
        if self.context is not None:
            rollouts = rollouts.after(prompts, self.lm.pad_id)
        return score_with_ends(self.lm, rollouts, micro_tokens=micro_tokens), int(rollouts.spans.sum())

    @torch.no_grad()
    def follow(self, student: LanguageModel) -> None:
        """With ``decay``: average <- decay average + (1 - decay) student, in float32, for what is trained of it."""
        if self.decay is None:
            return
        # By parameter: a state dict names tied weights twice, and they would move twice.
        own = dict(self.lm.model.named_parameters())
        for name, value in student.model.named_parameters():
            if value.requires_grad:
                own[name].lerp_(whole(value.detach()).to(own[name]), 1.0 - self.decay)

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it: the average; nothing of a model that does not move."""
        if self.decay is None:
            return {}
        return adapter_weights(self.lm) if self.lm.adapter is not None else dict(self.lm.model.named_parameters())

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor]) -> None:
        """Put back what ``weights`` gave."""
        own = dict(self.lm.model.named_parameters())
        for name, value in weights.items():
            own[name].copy_(value)


def read_by(task: Task, problem: Problem, context: str | None, solution: str | None) -> list[int]:
    """Ids of what a teacher reads before the completion."""
    return task.encode(problem) if context is None else task.read(problem, context, solution)
