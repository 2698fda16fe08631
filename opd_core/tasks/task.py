"""What a task is: problems to train on, problems to be examined on, and a way to tell right from wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """One prompt. ``prompt`` is the text as the student reads it (chat template applied); ``answer`` the reference."""

    id: int
    prompt: str
    answer: str | None


@dataclass(frozen=True)
class Task:
    """Problems, how to encode a prompt, and how to verify a completion.

    ``verify(completion_text, answer)`` is None where the task has no answers. No prompt text is in both ``train`` and
    ``eval``, unless the evaluation file was the user's own choice (then ``warnings`` counts the overlap).
    """

    name: str
    train: Sequence[Problem]
    eval: Sequence[Problem]
    verify: Callable[[str, str], bool] | None
    encode: Callable[[Problem], list[int]]
    warnings: list[str] = field(default_factory=list)
