"""Greedy accuracy on the held-out split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from opd_core.models import LanguageModel
from opd_core.rollout import FixedEngine, Rollouts, uniform_noise, write
from opd_core.spec import JobSpec
from opd_core.tasks import Problem, Task
from opd_core.tasks.environment import Transcript

_EXAMINATION = 0  # the step of the random numbers: training's begin at 1
_WAY = (20, 40, 60, 80)  # percent of the student's tokens


@dataclass(frozen=True)
class Evaluation:
    """accuracy: share of held-out problems solved. tokens: completion tokens. spent: with the prompts.

    ``problems`` are the ids of the held-out problems, ``correct`` and ``rollouts`` their greedy solutions, all in the
    same order.
    """

    accuracy: float
    problems: list[int]
    correct: list[bool]
    mean_length: float
    truncated: float
    tokens: int
    spent: int
    rollouts: Rollouts


def evaluate(
    lm: LanguageModel,
    task: Task,
    *,
    max_new_tokens: int,
    problems: Sequence[Problem] | None = None,
    encode: Callable[[Problem], list[int]] | None = None,
    engine: FixedEngine | None = None,
) -> Evaluation | None:
    """Solve the held-out problems (or some of them) greedily; None when the task cannot verify or there are none.

    ``encode`` is what the model reads, if not the bare prompt; ``engine`` is the model's, if it has one.
    """
    problems = task.eval if problems is None else problems
    if task.verify is None or not problems:
        return None
    prompts = [(encode or task.encode)(problem) for problem in problems]
    rollouts = write(
        lm, prompts, max_new_tokens=max_new_tokens, noise=None, engine=engine, environment=task.environment
    )
    correct = [bool(right) for right in verify(task, problems, answers(lm, task, rollouts.transcripts()))]
    tokens = int(rollouts.lengths.sum())
    return Evaluation(
        accuracy=sum(correct) / len(correct),
        problems=[problem.id for problem in problems],
        correct=correct,
        mean_length=tokens / len(correct),
        truncated=float(rollouts.truncated.float().mean()),
        tokens=tokens,
        spent=int(rollouts.spans.sum()),
        rollouts=rollouts,
    )


@dataclass(frozen=True)
class Sampled:
    """solved: of each held-out problem, how many of its samples are right. tokens, spent: as in Evaluation."""

    solved: list[int]
    tokens: int
    spent: int


def evaluate_samples(
    lm: LanguageModel, task: Task, spec: JobSpec, *, engine: FixedEngine | None = None
) -> Sampled | None:
    """Solve each held-out problem as often as the job's pass@k says, written as its rollouts are; None when it asks
    for none or the task cannot verify.

    The numbers behind the samples depend on seed, problem and sample alone: before and after training they are the
    same, so that the difference is the student's. One pass over the problems for each sample keeps the memory of one.
    """
    samples, rollout = spec.schedule.pass_at_k, spec.rollout
    if not samples or task.verify is None or not task.eval:
        return None
    prompts = [task.encode(problem) for problem in task.eval]
    solved, tokens, spent = [0] * len(prompts), 0, 0
    for sample in range(samples):
        keys = [(problem.id, sample) for problem in task.eval]
        noise = uniform_noise(spec.seed, _EXAMINATION, keys, task.room(rollout.max_new_tokens))
        rollouts = write(
            lm,
            prompts,
            max_new_tokens=rollout.max_new_tokens,
            noise=noise,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            engine=engine,
            environment=task.environment,
        )
        right = verify(task, task.eval, answers(lm, task, rollouts.transcripts()))
        solved = [count + bool(one) for count, one in zip(solved, right, strict=True)]
        tokens, spent = tokens + int(rollouts.lengths.sum()), spent + int(rollouts.spans.sum())
    return Sampled(solved, tokens, spent)


@dataclass(frozen=True)
class Recovery:
    """solved: percent of the way -> share of problems that the teacher still solves from there. spent: tokens."""

    solved: dict[int, float]
    spent: int


def recovery(teacher: LanguageModel, task: Task, written: Rollouts, *, problems: int, max_new_tokens: int) -> Recovery:
    """How often the teacher ends well after the first 20, 40, 60 and 80 % of what the student wrote.

    ``written`` are the student's solutions of all held-out problems; the first ``problems`` of them are looked at. A
    falling curve means that feedback deep inside a bad solution comes too late.
    """
    chosen = task.eval[:problems]
    looked_at = written.reorder(torch.arange(len(chosen), device=written.tokens.device))
    lengths = looked_at.lengths.tolist()
    solved, spent = {}, 0
    for percent in _WAY:
        kept = looked_at.beginnings([length * percent // 100 for length in lengths])
        prompts = [[*task.encode(problem), *start.ids] for problem, start in zip(chosen, kept, strict=True)]
        continued = write(
            teacher,
            prompts,
            max_new_tokens=max_new_tokens,
            noise=None,
            environment=task.environment,
            begun=[start.stretch for start in kept],
        )
        whole = [start.then(end) for start, end in zip(kept, continued.transcripts(), strict=True)]
        right = verify(task, chosen, answers(teacher, task, whole))
        solved[percent] = sum(map(bool, right)) / len(right)
        spent += int(continued.spans.sum())
    return Recovery(solved, spent)


def completions(lm: LanguageModel, rollouts: Rollouts) -> list[str]:
    """The text of each completion, special tokens left out; what an environment said is part of it."""
    return lm.tokenizer.batch_decode(rollouts.completions(), skip_special_tokens=True)


def answers(lm: LanguageModel, task: Task, written: Sequence[Transcript]) -> list[str]:
    """The text that is verified, special tokens left out: all that was written, or the last turn of a chat."""
    ids = [one.stretch if task.by_turns else one.ids for one in written]
    return lm.tokenizer.batch_decode(ids, skip_special_tokens=True)


def verify(task: Task, problems: Sequence[Problem], texts: Sequence[str]) -> list[bool | None]:
    """Right or wrong for each completion; None where the problem has no answer or the task no verifier.

    Where verifying waits for processes, as many run at a time as this one has threads to compute with.
    """
    right = task.verify
    if right is None:
        return [None] * len(texts)

    def verdict(problem: Problem, text: str) -> bool | None:
        return None if problem.answer is None else right(text, problem.answer)

    if not task.waits:
        return [verdict(problem, text) for problem, text in zip(problems, texts, strict=True)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(verdict, problems, texts))
