"""Holding problems out for evaluation."""

from __future__ import annotations

import random
from collections.abc import Sequence

from opd_core.tasks.task import Problem


def hold_out(problems: Sequence[Problem], count: int, *, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(train, eval): ``count`` problems with distinct prompts held out, at most half of the distinct prompts.

    A function of (problems, count, seed) alone. All problems that share a held-out prompt leave the training side;
    the first of them is the one evaluated. Both sides keep the order of ``problems``.
    """
    prompts = list(dict.fromkeys(problem.prompt for problem in problems))
    count = min(count, len(prompts) // 2)
    held = set(random.Random(f"hold-out {seed}").sample(prompts, count))  # noqa: S311
    train = [problem for problem in problems if problem.prompt not in held]
    first: dict[str, Problem] = {}
    for problem in problems:
        if problem.prompt in held:
            first.setdefault(problem.prompt, problem)
    return train, list(first.values())
