"""What a task is: problems to train on, problems to be examined on, and a way to tell right from wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from opd_core.tasks.environment import Environment, Transcript, heard


@dataclass(frozen=True)
class Problem:
    """One prompt. ``prompt`` is the text as the student reads it (chat template applied); ``answer`` the reference.

    ``raw`` is the prompt as the data has it (a text, or a list of messages), where it differs; ``demonstration`` a
    worked solution, ``tag`` the kind of problem, where the data names them. ``transcript`` is what follows the prompt
    in a conversation of the data.
    """

    id: int
    prompt: str
    answer: str | None
    raw: Any = None
    demonstration: str | None = None
    tag: str | None = None
    transcript: Transcript | None = None


@dataclass(frozen=True)
class Task:
    """Problems, how to encode a prompt, and how to verify a completion.

    ``read(problem, context, solution)`` are the ids of the prompt inside a teacher's context (contexts.py);
    ``imitate(text)`` those of a worked solution as a completion, its end of sequence included.

    ``environment`` answers in the middle of a rollout, where the task has one. ``by_turns``: a completion is a chat of
    several turns, the last of which is the answer.

    ``ood`` are longer than any of ``train``; empty where none were asked for.

    ``verify(completion_text, answer)`` is None where the task has no answers. With ``waits`` it has a process of its
    own do the work, and several threads may call it at a time. No prompt text is in both ``train`` and
    ``eval``, unless the evaluation file was the user's own choice (then ``warnings`` counts the overlap).
    """

    name: str
    train: Sequence[Problem]
    eval: Sequence[Problem]
    verify: Callable[[str, str], bool] | None
    encode: Callable[[Problem], list[int]]
    read: Callable[[Problem, str, str | None], list[int]]
    imitate: Callable[[str], list[int]]
    warnings: list[str] = field(default_factory=list)
    ood: Sequence[Problem] = ()
    waits: bool = False
    environment: Environment | None = None
    by_turns: bool = False

    def room(self, actions: int) -> int:
        """Tokens that a rollout of so many of the student's own can grow to."""
        return actions if self.environment is None else self.environment.room(actions)

    def solution(self, problem: Problem) -> Transcript:
        """What the data has written after the prompt: its conversation, or its worked solution."""
        if problem.transcript is not None:
            return problem.transcript
        assert problem.demonstration is not None  # the spec made sure of it
        return heard(self.imitate(problem.demonstration), self.environment)
