"""Who writes the states of a step: the student, and where the job asks for it teacher, data or an earlier student.

Everything random is counter-based per (seed, step, prompt, sample): a resumed run writes what it would have written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opd_core.models import LanguageModel
from opd_core.rollout import (
    Companion,
    FixedEngine,
    Rollouts,
    ServedStudent,
    by_length,
    imitated,
    join,
    request_seeds,
    uniform_noise,
    write,
)
from opd_core.spec import RolloutSpec
from opd_core.tasks import Problem, Task
from opd_core.tasks.environment import Transcript
from opd_core.teachers import Teacher, Voice

STUDENT, TEACHER, DATA = range(3)
ORIGINS = ("student", "teacher", "data")
_WHO = 0x3110
_BEGINNINGS = 1 << 32  # samples of these numbers drive what others write before the student goes on


@dataclass(frozen=True)
class Written:
    """The rows of a step, shortest first.

    ``group`` [B] numbers the prompts, ``origin`` [B] says who wrote (STUDENT, TEACHER, DATA), ``age`` [B] how many
    updates ago. ``begun`` are the ids that others wrote before a row's own tokens; they are part of its prompt.
    ``teacher_begun`` are the tokens that a teacher wrote to begin rows, those that were cut off included.
    """

    problems: list[Problem]
    rollouts: Rollouts
    group: Tensor
    origin: Tensor
    age: Tensor
    begun: list[list[int]]
    teacher_begun: int = 0

    def reorder(self, rows: Tensor) -> Written:
        """The rows at these indices, in that order."""
        order = rows.tolist()
        return Written(
            [self.problems[i] for i in order],
            self.rollouts.reorder(rows),
            self.group[rows],
            self.origin[rows],
            self.age[rows],
            [self.begun[i] for i in order],
            self.teacher_begun,
        )

    def fresh(self) -> Written:
        """Without the rows of earlier steps."""
        return self.reorder((self.age == 0).nonzero()[:, 0])


@dataclass(frozen=True)
class Writer:
    """Writes fresh rows for problems.

    ``engine`` is the student's, where its cache has a fixed size; ``served`` a server that writes its rows instead.
    """

    spec: RolloutSpec
    seed: int
    student: LanguageModel
    teacher: Teacher
    task: Task
    engine: FixedEngine | None = None
    served: ServedStudent | None = None

    def fresh(self, problems: Sequence[Problem], *, step: int, progress: float) -> Written:
        """``samples_per_prompt`` rows for each problem; ``progress`` is the share of the run that is done."""
        samples = self.spec.samples_per_prompt
        repeated = [problem for problem in problems for _ in range(samples)]
        keys = [(problem.id, i % samples) for i, problem in enumerate(repeated)]
        origin = self._origins(step, keys)
        begun, teacher_begun = self._begun(repeated, keys, origin, step, progress)
        rollouts = _by_kind(
            origin,
            {
                STUDENT: lambda rows: self._by_student(rows, repeated, keys, begun, step),
                TEACHER: lambda rows: self._by_teacher(rows, repeated, keys, step),
                DATA: lambda rows: self._from_data([repeated[i] for i in rows]),
            },
            self.student.pad_id,
        )
        device, given = rollouts.tokens.device, [beginning.ids for beginning in begun]
        group = torch.arange(len(repeated), device=device) // samples
        return Written(repeated, rollouts, group, origin.to(device), torch.zeros_like(group), given, teacher_begun)

    def end(self) -> None:
        """The run is over, or rests."""
        if self.served is not None:
            self.served.end()

    def _origins(self, step: int, keys: list[tuple[int, int]]) -> Tensor:
        """[B] drawn by the shares of ``written_by``."""
        shares = self.spec.written_by
        if shares.student == 1.0:
            return torch.full((len(keys),), STUDENT)
        drawn = torch.tensor(
            [
                np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, step, *k, _WHO)))).random()
                for k in keys
            ]
        )
        return (drawn >= shares.student).long() + (drawn >= shares.student + shares.teacher).long()

    def _begun(
        self, problems: list[Problem], keys: list[tuple[int, int]], origin: Tensor, step: int, progress: float
    ) -> tuple[list[Transcript], int]:
        """The beginnings from which the student's rows go on; how many tokens a teacher wrote for them."""
        begun = [Transcript([], []) for _ in problems]
        prefix = self.spec.prefix
        share = 0.0 if prefix is None else prefix.share * max(0.0, 1.0 - progress / prefix.until)
        rows = [] if share == 0.0 else (origin == STUDENT).nonzero()[:, 0].tolist()
        if not rows or prefix is None:
            return begun, 0
        if prefix.of == "data":
            whole = self._from_data([problems[i] for i in rows])
        else:
            # Noise of their own: the student's tokens must not depend on what chose the state before them.
            apart = [(problem, sample + _BEGINNINGS) for problem, sample in keys]
            whole = self._by_teacher(rows, problems, apart, step)
        lengths = whole.lengths.tolist()
        # Its end of sequence is never given away: there would be nothing left to write.
        given = whole.beginnings([min(int(share * length), length - 1) for length in lengths])
        for i, beginning in zip(rows, given, strict=True):
            begun[i] = beginning
        return begun, sum(lengths) if prefix.of == "teacher" else 0

    def _by_student(
        self,
        rows: list[int],
        problems: list[Problem],
        keys: list[tuple[int, int]],
        begun: list[Transcript],
        step: int,
    ) -> Rollouts:
        def written(own: list[int], companion: Companion | None = None) -> Rollouts:
            prompts = [[*self.task.encode(problems[i]), *begun[i].ids] for i in own]
            return self._write(self.student, own, prompts, keys, step, companion, [begun[i].stretch for i in own])

        if self.served is not None:
            return self.served.write(
                [[*self.task.encode(problems[i]), *begun[i].ids] for i in rows],
                step=step,
                seeds=request_seeds(self.seed, step, [keys[i] for i in rows]),
                max_new_tokens=self.spec.max_new_tokens,
                temperature=self.spec.temperature,
                top_p=self.spec.top_p,
            )
        mix = self.spec.teacher_mix
        if mix == 0.0:
            return written(rows)
        by_voice = self._by_voice(rows, problems)
        parts = [written(own, Companion(voice.lm, mix)) for voice, own in by_voice]
        return _in_order(parts, [own for _, own in by_voice], rows, self.student.pad_id)

    def _by_teacher(self, rows: list[int], problems: list[Problem], keys: list[tuple[int, int]], step: int) -> Rollouts:
        """The teacher reads its own context; the rows then stand after the prompts that the student reads."""
        by_voice = self._by_voice(rows, problems)
        parts = [
            self._write(voice.lm, own, [voice.encode(self.task, problems[i]) for i in own], keys, step)
            for voice, own in by_voice
        ]
        written = _in_order(parts, [own for _, own in by_voice], rows, self.student.pad_id)
        return written.after([self.task.encode(problems[i]) for i in rows], self.student.pad_id)

    def _by_voice(self, rows: list[int], problems: list[Problem]) -> list[tuple[Voice, list[int]]]:
        chosen = {i: self.teacher.speaker(problems[i]) for i in rows}
        return [(voice, own) for voice in self.teacher.voices if (own := [i for i in rows if chosen[i] is voice])]

    def _write(
        self,
        lm: LanguageModel,
        rows: list[int],
        prompts: list[list[int]],
        keys: list[tuple[int, int]],
        step: int,
        companion: Companion | None = None,
        begun: list[list[int]] | None = None,
    ) -> Rollouts:
        spec = self.spec
        return write(
            lm,
            prompts,
            max_new_tokens=spec.max_new_tokens,
            noise=uniform_noise(self.seed, step, [keys[i] for i in rows], self.task.room(spec.max_new_tokens)),
            temperature=spec.temperature,
            top_p=spec.top_p,
            companion=companion,
            engine=self.engine if lm is self.student else None,
            environment=self.task.environment,
            begun=begun,
        )

    def _from_data(self, problems: list[Problem]) -> Rollouts:
        written = [self.task.solution(problem).first(self.spec.max_new_tokens) for problem in problems]
        return imitated(
            [self.task.encode(problem) for problem in problems],
            [solution.ids for solution in written],
            self.student,
            [solution.own for solution in written],
        )


def sorted_by_length(written: Written) -> Written:
    """Sequences of similar length side by side: padding would be half of the work otherwise."""
    return written.reorder(by_length(written.rollouts))


def _by_kind(origin: Tensor, make: dict[int, Callable[[list[int]], Rollouts]], pad_id: int) -> Rollouts:
    rows = {kind: (origin == kind).nonzero()[:, 0].tolist() for kind in make}
    used = {kind: own for kind, own in rows.items() if own}
    return _in_order([make[kind](own) for kind, own in used.items()], list(used.values()), range(len(origin)), pad_id)


def _in_order(parts: list[Rollouts], rows: list[list[int]], wanted: Sequence[int], pad_id: int) -> Rollouts:
    """Parts that hold the rows of these indices, as one batch in the order of ``wanted``."""
    if len(parts) == 1:
        return parts[0]
    at = {index: place for place, index in enumerate(i for own in rows for i in own)}
    joined = join(parts, pad_id)
    return joined.reorder(torch.tensor([at[i] for i in wanted], device=joined.tokens.device))
