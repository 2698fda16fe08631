"""Token records: what is shown of a step, token by token. Written from recorded feedback, never fed back.

Everything that depends on the student's weights is computed before the update; the probe adds what the update did.
A recorded step can be planned again under another method (replan.py): for that the column ``batch`` keeps, as JSON,
what is true of the whole step and not of one sequence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opd_core.diagnostics.landing import landing
from opd_core.diagnostics.probe import Probe
from opd_core.diagnostics.vitals import of_favourites
from opd_core.objective.feedback import Feedback
from opd_core.objective.plan import PlanState, UpdatePlan
from opd_core.objective.targets import HiddenTarget, chunks, scan_budget
from opd_core.rollout import Rollouts


@dataclass(frozen=True)
class Text:
    """A rollout in words, and who wrote it: student, teacher or data."""

    problem: int
    prompt: str
    completion: str
    answer: str | None
    correct: bool | None
    origin: str = "student"


@dataclass(frozen=True)
class BatchFacts:
    """What a plan was made from beside the recorded sequences. ``sequences`` counts all of the step."""

    sequences: int
    vocabulary: int
    temperature: float
    teacher_temperature: float
    eos_ids: tuple[int, ...]
    special_ids: tuple[int, ...]
    progress: float
    critic_ready: bool
    running: Mapping[str, float]

    @classmethod
    def of(cls, feedback: Feedback, state: PlanState) -> BatchFacts:
        context = feedback.context
        return cls(
            sequences=len(feedback.mask),
            vocabulary=feedback.vocabulary,
            temperature=context.temperature,
            teacher_temperature=context.effective_teacher_temperature,
            eos_ids=context.eos_ids,
            special_ids=context.special_ids,
            progress=state.progress,
            critic_ready=state.critic_ready,
            running=dict(state.running),
        )

    @classmethod
    def read(cls, text: str) -> BatchFacts:
        """From the column ``batch``."""
        facts = json.loads(text)
        return cls(**{**facts, "eos_ids": tuple(facts["eos_ids"]), "special_ids": tuple(facts["special_ids"])})

    def written(self) -> str:
        """For the column ``batch``."""
        return json.dumps(asdict(self))


def choose_sequences(seed: int, step: int, total: int, count: int) -> list[int]:
    """Which of ``total`` sequences to record: uniform, from a generator of its own (telemetry changes no weights)."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step, 0x7E1E))))
    return sorted(generator.choice(total, size=min(count, total), replace=False).tolist())


def token_rows(lengths: Tensor, sequence: int) -> slice:
    """Where the tokens of a sequence lie in packed order."""
    stop = int(lengths[: sequence + 1].sum())
    return slice(stop - int(lengths[sequence]), stop)


class Recorder:
    """Records some sequences of one step: ``Recorder(...)`` before the update, ``rows(...)`` after it."""

    @torch.no_grad()
    def __init__(
        self,
        *,
        rollouts: Rollouts,
        feedback: Feedback,
        plan: UpdatePlan,
        state: PlanState,
        student: HiddenTarget,
        sequences: Sequence[int],
        top_k: int,
        probe_states: int,
    ) -> None:
        """``state`` is what the plan was made with."""
        self._rollouts, self._plan = rollouts, plan
        self._sequences = list(sequences)
        self._replies = replies(rollouts, self._sequences)
        lengths = rollouts.lengths
        spans = [token_rows(lengths, sequence) for sequence in self._sequences]
        self._packed = torch.cat([torch.arange(span.start, span.stop) for span in spans]).to(plan.tokens.device)
        self._counts = [span.stop - span.start for span in spans]
        self._fields = {
            "logp_student": feedback.student_logp,
            "logp_teacher": feedback.teacher_logp,
            "entropy_student": feedback.student_entropy,
            "entropy_teacher": feedback.teacher_entropy,
            "kl": feedback.kl,
        }
        told = {
            "critic_outputs": feedback.values,
            "logp_behaviour": feedback.context.behaviour_logp,
        }
        self._fields |= {name: values for name, values in told.items() if values is not None}
        self._bootstrap = feedback.bootstrap
        self._teacher, self._shared = feedback.teacher, feedback.shared
        self._teacher_temperature = feedback.context.effective_teacher_temperature
        self._batch = BatchFacts.of(feedback, state).written()
        self._top = _top_tokens(feedback, self._packed, top_k)
        self.probe = None
        if probe_states and self._sequences:
            # At most two sequences, so that the probe's extra forward stays small beside the step: those where the
            # teacher objects most, since what is shown is where suppressed mass goes.
            objection = feedback.log_ratio.clamp(max=0).sum(1)[self._sequences]
            chosen = objection.argsort()[:2].sort().values.tolist()
            probed = torch.cat([self._packed.split(self._counts)[n] for n in chosen])
            hardest = feedback.log_ratio[feedback.mask][probed].argsort()[:probe_states]
            self.probe = Probe(
                rollouts=rollouts,
                plan=plan,
                student=student,
                sequences=[self._sequences[n] for n in chosen],
                rows=probed[hardest.sort().values],
            )

    def vitals(self) -> dict[str, float]:
        """Numbers for the health checks. Call after the probe was measured."""
        if self.probe is None:
            return of_favourites(self._top)
        teacher = self._teacher[self.probe.rows].log_probs(self._teacher_temperature)
        if self._shared is not None:  # the probe looks at everything that the student may write
            own = self.probe.before.clamp(min=torch.finfo(teacher.dtype).tiny).log()
            teacher = self._shared[self.probe.rows].complete(teacher, own)
        return {**of_favourites(self._top), **landing(self.probe, teacher)}

    def rows(self, *, step: int, attempt: int, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """One row per recorded sequence, in the schema of ``opd_core.runs.records``. ``texts`` covers the batch."""
        packed = {name: field[self._rollouts.mask][self._packed] for name, field in self._fields.items()}
        packed |= {"token_ids": self._plan.tokens[self._packed], **self._top}
        columns = {name: split(values, self._counts) for name, values in packed.items()}
        planned = plan_columns(self._plan, self._packed, self._counts)
        probed = self.probe.columns() if self.probe else {}
        rows = []
        states = split(self._packed, self._counts)
        for n, (sequence, own) in enumerate(zip(self._sequences, states, strict=True)):
            text = texts[sequence]
            row: dict[str, Any] = {
                "step": step,
                "n": n,
                "attempt": attempt,
                "problem": text.problem,
                "prompt": text.prompt,
                "completion": text.completion,
                "answer": text.answer,
                "correct": text.correct,
                "truncated": bool(self._rollouts.truncated[sequence]),
                "reason": "uniform",
                "origin": text.origin,
                "length": self._counts[n],
                "replies": self._replies[n],
                "bootstrap": None if self._bootstrap is None else float(self._bootstrap[sequence]),
                "batch": self._batch,
                **dict.fromkeys(("critic_outputs", "logp_behaviour")),  # null unless they are known
                **planned[n],
            }
            row |= {name: values[n] for name, values in columns.items()}
            for name in ("probe_ids", "probe_predicted", "probe_realised"):
                row[name] = [probed[state][name] if state in probed else None for state in own]
            rows.append(row)
        return rows


def replies(rollouts: Rollouts, sequences: Sequence[int]) -> list[list[list[int] | None] | None]:
    """Per sequence and action the ids that an environment put behind it, null where none; null for a whole sequence."""
    chosen = rollouts.reorder(torch.tensor(list(sequences), dtype=torch.long, device=rollouts.mask.device))
    found: list[list[list[int] | None] | None] = []
    for ids, acted in zip(chosen.completions(), chosen.acted(), strict=True):
        behind: list[list[int] | None] = []
        for token, own in zip(ids, acted, strict=True):
            if own:
                behind.append(None)
            else:
                behind[-1] = [*(behind[-1] or []), token]
        found.append(None if all(acted) else behind)
    return found


def plan_columns(plan: UpdatePlan, packed: Tensor, counts: Sequence[int]) -> list[dict[str, Any]]:
    """What the plan did with the tokens at the ``packed`` rows: the columns of one row for each of ``counts``."""
    view, mask = plan.view, plan.mask
    fields = {"log_ratio": view.log_ratio, "returns": view.returns, "advantages": view.advantages, "gates": view.gates}
    if view.values is not None:
        fields["values"] = view.values
    columns = {name: split(field[mask][packed], counts) for name, field in fields.items()}
    columns["coefficients"] = split(plan.coefficients[packed], counts)
    gates = {name: weights[mask] for name, weights in view.gate_by_name.items()}
    for name, parts in (("gate_weights", gates), ("component_values", plan.components)):
        columns[name] = split(_side_by_side(parts, plan.weights)[packed], counts)
    columns["route_ids"], columns["route_weights"] = _routes(plan, packed, counts)
    names = {"gate_names": list(gates), "component_names": list(plan.components)}
    return [
        {"values": None, **names, **{name: values[n] for name, values in columns.items()}} for n in range(len(counts))
    ]


def split(values: Tensor, counts: Sequence[int]) -> list[list[Any]]:
    """Packed values as one list per sequence."""
    packed = values.tolist()  # at once: a call for each sequence would cost more than its numbers
    return [packed[stop - count : stop] for stop, count in zip(accumulate(counts), counts, strict=True)]


def _routes(plan: UpdatePlan, packed: Tensor, counts: Sequence[int]) -> tuple[list[list[Any]], list[list[Any]]]:
    """Destinations that get anything, per sequence and token: the plan's table is padded with zeros."""
    ids, weights = (split(table[packed], counts) for table in (plan.route_ids, plan.route_weights))
    given = [[[w != 0 for w in token] for token in sequence] for sequence in weights]

    def only(table: list[list[Any]]) -> list[list[Any]]:
        return [
            [list(compress(token, kept)) for token, kept in zip(sequence, keep, strict=True)]
            for sequence, keep in zip(table, given, strict=True)
        ]

    return only(ids), only(weights)


def _side_by_side(parts: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """Named [N] columns -> [N, number of names]."""
    return torch.stack(list(parts.values()), 1) if parts else like.new_zeros((len(like), 0))


def _top_tokens(feedback: Feedback, packed: Tensor, top_k: int) -> dict[str, Tensor]:
    """Both models' favourites at the recorded states, and what the others think of them: the other model, and the
    reference where there is one (also of the sampled token)."""
    student, reference, sampled = feedback.student, feedback.context.reference, feedback.tokens[feedback.mask]
    temperature, teacher_temperature = feedback.context.temperature, feedback.context.effective_teacher_temperature
    parts: list[tuple[Tensor, ...]] = []
    vocabulary = student[slice(0, 1)].log_probs(temperature).shape[-1]
    for rows in chunks(len(packed), vocabulary, budget=scan_budget(packed.device)):
        own = student[packed[rows]].log_probs(temperature)
        theirs = feedback.teacher[packed[rows]].log_probs(teacher_temperature)
        own_top = own.topk(min(top_k, vocabulary))
        their_top = theirs.topk(min(top_k, vocabulary))
        columns = (
            own_top.indices,
            own_top.values,
            theirs.gather(1, own_top.indices),
            their_top.indices,
            their_top.values,
            own.gather(1, their_top.indices),
        )
        if reference is not None:
            start = reference[packed[rows]].log_probs(temperature)
            of_sampled = start.gather(1, sampled[packed[rows], None])[:, 0]
            columns += (*(start.gather(1, top.indices) for top in (own_top, their_top)), of_sampled)
        parts.append(columns)
    names = (
        "student_top_ids",
        "student_top_logp",
        "student_top_teacher_logp",
        "teacher_top_ids",
        "teacher_top_logp",
        "teacher_top_student_logp",
        "student_top_reference_logp",
        "teacher_top_reference_logp",
        "logp_reference",
    )[: len(parts[0])]
    return {name: torch.cat(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
