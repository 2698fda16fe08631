"""Who scores: one teacher or several, each problem by those that speak for it.

p = sum_k w_k p_k over the teachers of a problem's tag, w normalised for each problem (MOPD: one teacher per tag).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.models import LanguageModel
from opd_core.objective.targets import HiddenTarget, MixtureTarget
from opd_core.spec import UserError
from opd_core.tasks import Problem, Task
from opd_core.teachers.local import Scores
from opd_core.teachers.voice import Asked, Voice

_SOLUTION = "{solution}"


@dataclass(frozen=True)
class Scored:
    """Scores with their price: ``tokens`` read by all teachers together, and by each; ``flops`` of these forwards."""

    scores: Scores
    tokens: int
    flops: float
    of_each: tuple[int, ...]


class Teacher:
    """All teachers of a job."""

    wants_proposals = False  # whether it has to be told which of the student's tokens to speak of (Asked.proposed)

    def __init__(self, voices: Sequence[Voice], task: Task) -> None:
        self.voices = tuple(voices)
        self._task = task

    @property
    def shows_solutions(self) -> bool:
        """Whether somebody reads right rollouts of the same prompt."""
        return any(_SOLUTION in (voice.context or "") for voice in self.voices)

    def check_tags(self) -> None:
        """Raise UserError for a problem that no teacher speaks for."""
        for problem in (*self._task.train, *self._task.eval):
            if not any(voice.speaks_for(problem) for voice in self.voices):
                raise UserError(
                    f"teacher.mixture: nobody speaks for the tag {problem.tag!r} of problem {problem.id}; add it to a "
                    "teacher's tags, or a teacher without tags",
                    param="teacher.mixture",
                    code="no_teacher",
                )

    def score(self, asked: Asked, *, micro_tokens: int) -> Scored:
        """Every teacher reads the rollouts that it speaks for."""
        weights = self._weights(asked.problems)
        found, read, flops = [], [], 0.0
        for k, voice in enumerate(self.voices):
            rows = weights[:, k].nonzero()[:, 0].tolist()
            if len(rows) == len(weights):
                scores, tokens = voice.score(asked, self._task, micro_tokens=micro_tokens)
            elif rows:
                part, tokens = voice.score(asked.select(rows), self._task, micro_tokens=micro_tokens)
                scores = _spread(part, rows, asked)
            else:
                scores, tokens = _spread(None, rows, asked, like=voice.lm), 0
            found.append(scores)
            read.append(tokens)
            flops += 2.0 * voice.lm.flop_parameters * tokens
        if len(found) == 1:
            return Scored(found[0], sum(read), flops, tuple(read))
        weights = weights.to(asked.rollouts.tokens.device)
        of_tokens = weights.repeat_interleave(asked.rollouts.lengths, dim=0)
        mixed = Scores(
            MixtureTarget(of_tokens, tuple(scores.rows for scores in found)),
            MixtureTarget(weights, tuple(scores.ends for scores in found)),
        )
        return Scored(mixed, sum(read), flops, tuple(read))

    def speaker(self, problem: Problem) -> Voice:
        """The heaviest teacher of a problem: the one that writes where a teacher writes."""
        return max((voice for voice in self.voices if voice.speaks_for(problem)), key=lambda voice: voice.weight)

    def follow(self, student: LanguageModel) -> None:
        """After an update of the student."""
        for voice in self.voices:
            voice.follow(student)

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: '{teacher}:{parameter}' -> tensor. Empty where no teacher moves."""
        return {
            f"{k}:{name}": value.detach().contiguous()
            for k, voice in enumerate(self.voices)
            for name, value in voice.weights().items()
        }

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Put back what ``weights`` gave."""
        for k, voice in enumerate(self.voices):
            prefix = f"{k}:"
            voice.restore({name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)})

    def _weights(self, problems: Sequence[Problem]) -> Tensor:
        """[B, K], each row adds up to 1."""
        raw = torch.tensor([[v.weight if v.speaks_for(problem) else 0.0 for v in self.voices] for problem in problems])
        return raw / raw.sum(1, keepdim=True)


def _spread(part: Scores | None, rows: list[int], asked: Asked, *, like: LanguageModel | None = None) -> Scores:
    """Scores of some rollouts as rows of all; what nobody asked for is zero and gets no weight."""
    lengths = asked.rollouts.lengths
    if part is None:
        assert like is not None
        width, head, device = like.head.weight.shape[1], like.head, lengths.device
        return Scores(
            HiddenTarget(torch.zeros(int(lengths.sum()), width, device=device), head),
            HiddenTarget(torch.zeros(len(lengths), width, device=device), head),
        )
    chosen = torch.zeros(len(lengths), dtype=torch.bool, device=lengths.device)
    chosen[rows] = True
    assert isinstance(part.rows, HiddenTarget)
    assert isinstance(part.ends, HiddenTarget)
    return Scores(
        HiddenTarget(_into(part.rows.hidden, chosen.repeat_interleave(lengths)), part.rows.head),
        HiddenTarget(_into(part.ends.hidden, chosen), part.ends.head),
    )


def _into(values: Tensor, where: Tensor) -> Tensor:
    full = values.new_zeros((len(where), *values.shape[1:]))
    full[where] = values
    return full
