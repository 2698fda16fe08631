"""Greedy accuracy on the held-out split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opd_core.models import LanguageModel
from opd_core.rollout import Rollouts, write
from opd_core.tasks import Problem, Task


@dataclass(frozen=True)
class Evaluation:
    """accuracy: share of held-out problems solved. tokens: completion tokens. spent: with the prompts."""

    accuracy: float
    mean_length: float
    truncated: float
    tokens: int
    spent: int


def evaluate(lm: LanguageModel, task: Task, *, max_new_tokens: int) -> Evaluation | None:
    """Solve every held-out problem greedily; None when the task cannot verify or holds nothing out."""
    if task.verify is None or not task.eval:
        return None
    prompts = [task.encode(problem) for problem in task.eval]
    rollouts = write(lm, prompts, max_new_tokens=max_new_tokens, noise=None)
    correct = verify(task, task.eval, completions(lm, rollouts))
    tokens = int(rollouts.lengths.sum())
    return Evaluation(
        accuracy=sum(map(bool, correct)) / len(correct),
        mean_length=tokens / len(correct),
        truncated=float(rollouts.truncated.float().mean()),
        tokens=tokens,
        spent=tokens + int(rollouts.prompt_mask.sum()),
    )


def completions(lm: LanguageModel, rollouts: Rollouts) -> list[str]:
    """The text of each completion, special tokens left out."""
    ids = [row[mask].tolist() for row, mask in zip(rollouts.tokens.cpu(), rollouts.mask.cpu(), strict=True)]
    return lm.tokenizer.batch_decode(ids, skip_special_tokens=True)


def verify(task: Task, problems: Sequence[Problem], texts: Sequence[str]) -> list[bool | None]:
    """Right or wrong for each completion; None where the problem has no answer or the task no verifier."""
    if task.verify is None:
        return [None] * len(texts)
    return [
        None if problem.answer is None else task.verify(text, problem.answer)
        for problem, text in zip(problems, texts, strict=True)
    ]
