"""A teacher behind HTTP: known at the sampled token and at its own favourites, the rest of its mass spread evenly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from opd_core.objective.targets import SparseTarget
from opd_core.spec import UserError
from opd_core.tasks import Problem, Task
from opd_core.teachers.local import Scores
from opd_core.teachers.server import Server
from opd_core.teachers.teacher import Scored, Teacher
from opd_core.teachers.voice import Asked, read_by

_SLIGHT = -7.0  # log of a probability of a thousandth
_FLOOR = -100.0  # servers say -inf for what float16 cannot tell from nothing


class RemoteTeacher(Teacher):
    """The only teacher of its job. It has no weights here: it never moves, and its operations are not ours to count."""

    def __init__(self, server: Server, task: Task, *, vocabulary: int, context: str | None) -> None:
        super().__init__((), task)
        self.server = server
        self._vocabulary, self._context = vocabulary, context

    @property
    def shows_solutions(self) -> bool:
        return "{solution}" in (self._context or "")

    @property
    def name(self) -> str:
        return f"{self.server.endpoint.model} at {self.server.name}"

    def check(self, favourites: int) -> None:
        """Does it answer, in our ids, as much as the method needs? Raises UserError or TeacherUnreachable."""
        if favourites > self.server.endpoint.top_k:
            raise UserError(
                f"teacher.endpoint: the method looks at {favourites} favourites of the teacher, and "
                f"{self.server.name!r} is registered for {self.server.endpoint.top_k} (top_k; vLLM: --max-logprobs)",
                param="teacher.endpoint",
                code="unsuitable_endpoint",
            )
        ids = self._task.encode(self._task.train[0])
        read = self.server.read(ids, self.server.endpoint.top_k)
        for token, entry in zip(ids[1:], read.tokens[1:], strict=True):
            if token not in entry:
                raise UserError(
                    f"teacher.endpoint: {self.server.name!r} does not score the prompt's own tokens: id {token} is "
                    "missing in its answer",
                    param="teacher.endpoint",
                    code="unsuitable_endpoint",
                )
        # Padded rows of its embedding may be listed with next to no mass; ids that carry mass may not.
        beyond = [i for entry in read.tokens for i, logp in entry.items() if i >= self._vocabulary and logp > _SLIGHT]
        if beyond:
            raise UserError(
                f"teacher.endpoint: {self.server.name!r} speaks of token id {beyond[0]}, and the student has "
                f"{self._vocabulary}: it has another vocabulary",
                param="teacher.endpoint",
                code="different_vocabularies",
            )

    def score(self, asked: Asked, *, micro_tokens: int) -> Scored:
        """Every rollout is one request; as many at a time as the operator allows. Raises TeacherUnreachable."""
        del micro_tokens  # the server cuts its batches itself
        written = asked.rollouts.completions()
        prompts = [self._prompt(asked, row) for row in range(len(written))]
        sequences = [prompt + tokens for prompt, tokens in zip(prompts, written, strict=True)]
        with ThreadPoolExecutor(self.server.endpoint.concurrency) as pool:
            reads = list(pool.map(lambda ids: self.server.read(ids, self.server.endpoint.top_k), sequences))
        rows = [entry for prompt, read in zip(prompts, reads, strict=True) for entry in read.tokens[len(prompt) :]]
        device, read_tokens = asked.rollouts.tokens.device, sum(map(len, sequences))
        scores = Scores(
            sparse(rows, self._vocabulary).to(device),
            sparse([read.after for read in reads], self._vocabulary).to(device),
        )
        return Scored(scores, read_tokens, 0.0, (read_tokens,))

    def solve(self, problems: Sequence[Problem], max_new_tokens: int) -> list[str]:
        """Its own greedy solutions, as text."""
        prompts = [read_by(self._task, problem, self._context, None) for problem in problems]
        with ThreadPoolExecutor(self.server.endpoint.concurrency) as pool:
            return list(pool.map(lambda ids: self.server.write(ids, max_new_tokens), prompts))

    def _prompt(self, asked: Asked, row: int) -> list[int]:
        if self._context is not None:
            before = read_by(self._task, asked.problems[row], self._context, asked.solutions[row])
            return [*before, *asked.beginning(row)]
        rollouts = asked.rollouts
        ids: list[int] = rollouts.prompts[row][rollouts.prompt_mask[row]].tolist()
        return ids


def sparse(entries: Sequence[Mapping[int, float]], vocabulary: int) -> SparseTarget:
    """Maps id -> log-probability as rows. Ids that the student does not have are dropped, their mass with the rest."""
    nothing = [(0, -math.log(vocabulary))]  # a row about which nothing was said is flat
    known = [[(i, logp) for i, logp in entry.items() if i < vocabulary] or nothing for entry in entries]
    width = max((len(entry) for entry in known), default=1)
    ids = torch.zeros((len(known), width), dtype=torch.long)
    logp = torch.full((len(known), width), -torch.inf)
    keep = torch.zeros((len(known), width), dtype=torch.bool)
    for row, entry in enumerate(known):
        for column, (i, value) in enumerate(entry):
            ids[row, column], logp[row, column], keep[row, column] = i, max(value, _FLOOR), True
        # Unused places repeat an id with no mass, which a row of V takes no notice of.
        ids[row, len(entry) :] = entry[0][0]
    return SparseTarget(ids, logp, keep, vocabulary, 1.0)
