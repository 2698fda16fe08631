"""A teacher behind HTTP: known at the sampled token, at its own favourites and at what the student asks about.

The rest of its mass is spread evenly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import compress

import torch

from opd_core.objective.targets import SparseTarget
from opd_core.servers import Server
from opd_core.spec import MethodSpec, UserError
from opd_core.spec.combinations import students_favourites, teachers_favourites
from opd_core.tasks import Problem, Task
from opd_core.teachers.abilities import Abilities
from opd_core.teachers.dialect import Dialect, write
from opd_core.teachers.local import Scores
from opd_core.teachers.recognise import SLIGHT, recognise, why_no_candidates
from opd_core.teachers.teacher import Scored, Teacher
from opd_core.teachers.voice import Asked, read_by

_FLOOR = -100.0  # servers say -inf for what float16 cannot tell from nothing
_PROBED = 8  # tokens at least


@dataclass(frozen=True)
class _Told:
    """Of one rollout: maps id -> log-probability at its actions, and after its last token; tokens read for it."""

    tokens: list[Mapping[int, float]]
    after: Mapping[int, float]
    read: int


class RemoteTeacher(Teacher):
    """The only teacher of its job. It has no weights here: it never moves, and its operations are not ours to count."""

    def __init__(
        self,
        server: Server,
        task: Task,
        *,
        vocabulary: int,
        context: str | None,
        wants_proposals: bool = False,
    ) -> None:
        super().__init__((), task)
        self.server = server
        self.wants_proposals = wants_proposals
        self._vocabulary, self._context = vocabulary, context
        self._dialect: Dialect | None = None  # of the server, once it was spoken to

    @property
    def shows_solutions(self) -> bool:
        return "{solution}" in (self._context or "")

    @property
    def name(self) -> str:
        return f"{self.server.endpoint.model} at {self.server.name}"

    def check(self, method: MethodSpec) -> Abilities:
        """Does it answer, in our ids, as much as the method needs? What it can do, to be told.

        Raises UserError or ServerUnreachable.
        """
        favourites, proposals = teachers_favourites(method), students_favourites(method)
        if favourites > self.server.endpoint.top_k:
            raise UserError(
                f"teacher.endpoint: the method looks at {favourites} favourites of the teacher, and "
                f"{self.server.name!r} is registered for {self.server.endpoint.top_k} (top_k; vLLM: --max-logprobs)",
                param="teacher.endpoint",
                code="unsuitable_endpoint",
            )
        ids = self._task.encode(self._task.train[0])
        ids = ids * math.ceil(_PROBED / len(ids))
        dialect = self._speak(ids)
        read = dialect.read(ids, self.server.endpoint.top_k)
        for token, entry in zip(ids[1:], read.tokens[1:], strict=True):
            if token not in entry:
                raise UserError(
                    f"teacher.endpoint: {self.server.name!r} does not score the prompt's own tokens: id {token} is "
                    "missing in its answer",
                    param="teacher.endpoint",
                    code="unsuitable_endpoint",
                )
        # Padded rows of its embedding may be listed with next to no mass; ids that carry mass may not.
        beyond = [i for entry in read.tokens for i, logp in entry.items() if i >= self._vocabulary and logp > SLIGHT]
        if beyond:
            raise UserError(
                f"teacher.endpoint: {self.server.name!r} speaks of token id {beyond[0]}, and the student has "
                f"{self._vocabulary}: it has another vocabulary",
                param="teacher.endpoint",
                code="different_vocabularies",
            )
        why_not = why_no_candidates(dialect, ids, read)
        if proposals and why_not is not None:
            raise UserError(
                f"method.support: this method looks at the teacher's log-probabilities of the student's top {proposals}"
                f", and {self.server.name!r} does not score given candidates ({why_not}): use method.support {{kind: "
                "teacher_top_k}, {kind: intersection} or {kind: sampled}, or a server that scores given candidates: "
                f"{dialect.needs}",
                param="method.support",
                code="unsuitable_endpoint",
            )
        return Abilities(self.name, dialect.name, self.server.endpoint.top_k, why_not, dialect.needs)

    def score(self, asked: Asked, *, micro_tokens: int) -> Scored:
        """Every rollout is one request, and as many more as its proposals take; as many rollouts at a time as the
        operator allows. Raises ServerUnreachable, or UserError where the server says less than it was asked.
        """
        del micro_tokens  # the server cuts its batches itself
        if self.wants_proposals and asked.proposed is None:
            raise ValueError("this teacher was to be asked about the student's proposals, and there are none")
        written, acted = asked.rollouts.completions(), asked.rollouts.acted()
        prompts = [self._prompt(asked, row) for row in range(len(written))]
        proposed: list[list[list[int]] | None] = [None] * len(written)
        if asked.proposed is not None:
            proposed = [part.tolist() for part in asked.proposed.cpu().split(asked.rollouts.lengths.tolist())]
        dialect = self._speak(prompts[0] + written[0])
        with ThreadPoolExecutor(self.server.endpoint.concurrency) as pool:
            told = list(pool.map(partial(self._ask, dialect), prompts, written, acted, proposed))
        device, read_tokens = asked.rollouts.tokens.device, sum(one.read for one in told)
        scores = Scores(
            sparse([entry for one in told for entry in one.tokens], self._vocabulary).to(device),
            sparse([one.after for one in told], self._vocabulary).to(device),
        )
        return Scored(scores, read_tokens, 0.0, (read_tokens,))

    def solve(self, problems: Sequence[Problem], max_new_tokens: int) -> list[str]:
        """Its own greedy solutions, as text."""
        prompts = [read_by(self._task, problem, self._context, None) for problem in problems]
        with ThreadPoolExecutor(self.server.endpoint.concurrency) as pool:
            return list(pool.map(lambda ids: write(self.server, ids, max_new_tokens), prompts))

    def _speak(self, ids: Sequence[int]) -> Dialect:
        if self._dialect is None:
            self._dialect = recognise(self.server, ids)
        return self._dialect

    def _ask(
        self,
        dialect: Dialect,
        prompt: list[int],
        written: list[int],
        acted: list[bool],
        proposed: list[list[int]] | None,
    ) -> _Told:
        """About one rollout: its actions and the server's favourites, then what of the proposals is not among them."""
        ids = prompt + written
        read = dialect.read(ids, self.server.endpoint.top_k)
        tokens, spent = list(read.tokens[len(prompt) :]), len(ids)
        if proposed is not None:
            of_actions = iter(proposed)
            wanted = [next(of_actions) if own else [] for own in acted]
            missing = [
                [i for i in dict.fromkeys(asked) if i not in known] for asked, known in zip(wanted, tokens, strict=True)
            ]
            given = dialect.score(ids, len(prompt), missing)
            tokens = [{**known, **more} for known, more in zip(tokens, given.tokens, strict=True)]
            spent += given.read
        return _Told(list(compress(tokens, acted)), read.after, spent)

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
