"""A teacher with a tokenizer of its own reads the student's text, and is read off where both tokenize alike.

It reads prompt and completion as text in its own tokens, in its own chat template. A token of the student is aligned
where the teacher has a token with the same bytes, at the same place: both are then in the same state of the text, and
their distributions over the tokens that both have are compared (objective/shared.py). The end of sequence is matched by
its role. Tokens that one side merges and the other splits are not aligned; nothing is made up for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress, takewhile

import torch

from opd_core.models import LanguageModel, same_bytes, token_bytes
from opd_core.objective.shared import Shared, TranslatedTarget
from opd_core.objective.targets import Target
from opd_core.rollout import Rollouts, imitated
from opd_core.spec import TaskSpec, UserError
from opd_core.tasks import Problem, Task
from opd_core.tasks.contexts import imitate, read
from opd_core.tasks.prompts import Prompts
from opd_core.teachers.local import Scores, score_with_ends
from opd_core.teachers.spans import readable, same_spans


@dataclass(frozen=True)
class Reading:
    """One completion in the teacher's tokens.

    ``ids`` end with its end of sequence, so that the state after the text is one of those before its tokens. ``rows``
    say for each token of the student from which of them the teacher's distribution is taken; -1 = not aligned. ``end``
    is that of the state after the student's last token.
    """

    ids: list[int]
    rows: list[int]
    end: int


class Translator:
    """What lies between a student and a teacher that speak of different tokens."""

    def __init__(self, student: LanguageModel, teacher: LanguageModel, task: TaskSpec, *, param: str) -> None:
        """``param`` is the field of the spec that asks for it. Raises UserError for tokenizers that cannot be told."""
        self._lm, self._param = teacher, param
        self._prompts = Prompts(teacher.tokenizer, task.template, task.system_prompt, whose="teacher")
        _check_one_stretch(task, param)
        self._ours = token_bytes(student.tokenizer, student.vocab_size, param=param)
        self._theirs = token_bytes(teacher.tokenizer, teacher.vocab_size, param=param)
        self._ends = set(student.eos_ids)
        self._eos = _end_of_sequence(teacher)
        same = same_bytes(self._ours, self._theirs)
        self._same = {ours: theirs for ours, theirs in same.items() if theirs != self._eos}
        self._same[_end_of_sequence(student)] = self._eos
        self._lead = self._adds_a_blank()
        device = student.head.weight.device
        self._ids = torch.zeros(student.vocab_size, dtype=torch.long, device=device)
        self._absent = torch.ones(student.vocab_size, dtype=torch.bool, device=device)
        own = torch.tensor(sorted(self._same), device=device)
        self._ids[own] = torch.tensor([self._same[i] for i in sorted(self._same)], device=device)
        self._absent[own] = False

    @property
    def shared_tokens(self) -> int:
        """How many tokens of the student the teacher has too."""
        return len(self._same)

    def task(self, task: Task) -> Task:
        """The same problems as the teacher reads them."""
        prompts = self._prompts
        return replace(
            task,
            encode=lambda problem: self._known(prompts.encode(self._text(problem))),
            read=lambda problem, context, solution: self._known(
                read(prompts, replace(problem, prompt=self._text(problem)), context, solution)
            ),
            imitate=lambda text: imitate(self._lm.tokenizer, text),
        )

    def score(self, prompts: Sequence[Sequence[int]], written: Rollouts, *, micro_tokens: int) -> tuple[Scores, int]:
        """Its distributions on the actions of ``written`` after ``prompts`` in its own ids; tokens that it read."""
        readings = [self.read(completion) for completion in written.completions()]
        rollouts = imitated(prompts, [reading.ids for reading in readings], self._lm)
        told = score_with_ends(self._lm, rollouts, micro_tokens=micro_tokens).rows
        rows, ends, start = [], [], 0
        for reading, acted in zip(readings, written.acted(), strict=True):
            rows += [-1 if row < 0 else start + row for row in compress(reading.rows, acted)]
            ends.append(-1 if reading.end < 0 else start + reading.end)
            start += len(reading.ids)
        return Scores(self._at(told, rows), self._at(told, ends)), int(rollouts.spans.sum())

    def read(self, completion: Sequence[int]) -> Reading:
        """One completion of the student, ids."""
        ended = bool(completion) and completion[-1] in self._ends
        text = completion[:-1] if ended else completion
        pieces = [piece for piece in takewhile(bool, (self._ours[i] for i in text)) if piece]
        ids, spelled, lead = self._encode(readable(pieces))
        rows = [-1] * len(completion)
        for ours, theirs in same_spans(pieces, spelled, lead).items():
            if self._same.get(completion[ours]) == ids[theirs]:
                rows[ours] = theirs
        # In the same state at the end: the teacher has read all of the text, and nothing else.
        whole = len(pieces) == len(text) and b"".join(pieces) == b"".join(spelled)[lead:]
        end = len(ids) if whole else -1
        if ended and self._same.get(completion[-1]) == self._eos:
            rows[-1] = end
        return Reading([*ids, self._eos], rows, -1 if ended else end)

    def _encode(self, text: str) -> tuple[list[int], list[bytes], int]:
        """The teacher's ids of a text, their bytes, and how many of these come before the text begins.

        Cut at the first token that is not known by its bytes.
        """
        lead = self._lead
        if lead and text.startswith(" "):  # the blank that it would add is there already
            text, lead = text[1:], 0
        ids = list(self._lm.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
        spelled = [piece for piece in takewhile(bool, map(self._spelled, ids)) if piece]
        return ids[: len(spelled)], spelled, lead if spelled else 0

    def _spelled(self, token: int) -> bytes | None:
        return self._theirs[token] if token < len(self._theirs) else None

    def _adds_a_blank(self) -> int:
        """1 where the tokenizer sets a blank before every text, as SentencePiece does."""
        ids = self._lm.tokenizer("a", add_special_tokens=False)["input_ids"]
        first = self._spelled(ids[0]) if ids else None
        return int(first is not None and first.startswith(b" "))

    def _at(self, told: Target, rows: list[int]) -> TranslatedTarget:
        where = torch.tensor(rows, dtype=torch.long, device=self._ids.device)
        return TranslatedTarget(told[where.clamp(min=0)], self._ids, Shared(where >= 0, self._absent))

    def _text(self, problem: Problem) -> str:
        """A prompt as the teacher reads it: rendered by its own chat template, where there is one."""
        return self._prompts.render(problem.prompt if problem.raw is None else problem.raw)

    def _known(self, ids: list[int]) -> list[int]:
        if (beyond := max(ids, default=0)) >= self._lm.vocab_size:
            token = self._lm.tokenizer.convert_ids_to_tokens(beyond)
            raise UserError(
                f"{self._param}: a prompt uses the token {token!r}, for which '{self._lm.name}' has no embedding",
                param=self._param,
                code="different_vocabularies",
            )
        return ids


def _check_one_stretch(task: TaskSpec, param: str) -> None:
    """Turns of a chat are set apart by special tokens of the student's, which are no text that a teacher could read."""
    for field in ("tool", "messages_column"):
        if task.dataset is not None and getattr(task, field) is not None:
            raise UserError(
                f"{param}: a teacher with another tokenizer reads a completion as one text, and task.{field} makes "
                "several turns of it; give a teacher with the student's tokenizer",
                param=param,
                code="several_turns",
            )


def _end_of_sequence(lm: LanguageModel) -> int:
    """The token that ends a completion: the tokenizer's own, if the model ends by it."""
    own = lm.tokenizer.eos_token_id
    return own if own in lm.eos_ids else lm.eos_ids[0]
