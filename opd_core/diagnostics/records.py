"""Token records: what is shown of a step, token by token. Written from recorded feedback, never fed back.

Everything that depends on the student's weights is computed before the update; the probe adds what the update did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opd_core.diagnostics.probe import Probe
from opd_core.objective.feedback import Feedback
from opd_core.objective.plan import UpdatePlan
from opd_core.objective.targets import HiddenTarget, chunks
from opd_core.rollout import Rollouts


@dataclass(frozen=True)
class Text:
    """A rollout in words."""

    problem: int
    prompt: str
    completion: str
    answer: str | None
    correct: bool | None


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
        student: HiddenTarget,
        sequences: Sequence[int],
        top_k: int,
        probe_states: int,
    ) -> None:
        self._rollouts, self._plan = rollouts, plan
        self._sequences = list(sequences)
        lengths = rollouts.lengths
        spans = [token_rows(lengths, sequence) for sequence in self._sequences]
        self._packed = torch.cat([torch.arange(span.start, span.stop) for span in spans]).to(plan.tokens.device)
        self._counts = [span.stop - span.start for span in spans]
        self._fields = {
            "logp_student": feedback.student_logp,
            "logp_teacher": feedback.teacher_logp,
            "log_ratio": plan.view.log_ratio,
            "returns": plan.view.returns,
            "advantages": plan.view.advantages,
            "gates": plan.view.gates,
            "entropy_student": feedback.student_entropy,
            "entropy_teacher": feedback.teacher_entropy,
            "kl": feedback.kl,
        }
        if plan.view.values is not None:
            self._fields["values"] = plan.view.values
        self._top = _top_tokens(student, feedback, self._packed, top_k)
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

    def rows(self, *, step: int, attempt: int, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """One row per recorded sequence, in the schema of ``opd_core.runs.records``. ``texts`` covers the batch."""
        columns = {name: self._split(field[self._rollouts.mask][self._packed]) for name, field in self._fields.items()}
        columns["coefficients"] = self._split(self._plan.coefficients[self._packed])
        columns["token_ids"] = self._split(self._plan.tokens[self._packed])
        for name, values in self._top.items():
            columns[name] = self._split(values)
        columns["route_ids"], columns["route_weights"] = self._routes()
        gates = {name: weights[self._rollouts.mask] for name, weights in self._plan.view.gate_by_name.items()}
        for name, parts in (("gate_weights", gates), ("component_values", self._plan.components)):
            columns[name] = self._split(_side_by_side(parts, self._plan.weights)[self._packed])
        probed = self.probe.columns() if self.probe else {}
        rows = []
        for n, (sequence, packed) in enumerate(zip(self._sequences, self._split(self._packed), strict=True)):
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
                "length": self._counts[n],
                "values": None,  # unless there is a critic
                "gate_names": list(gates),
                "component_names": list(self._plan.components),
            }
            row |= {name: values[n] for name, values in columns.items()}
            for name in ("probe_ids", "probe_predicted", "probe_realised"):
                row[name] = [probed[state][name] if state in probed else None for state in packed]
            rows.append(row)
        return rows

    def _routes(self) -> tuple[list[list[Any]], list[list[Any]]]:
        """Destinations that get anything, per sequence and token: the plan's table is padded with zeros."""
        ids, weights = (self._split(table[self._packed]) for table in (self._plan.route_ids, self._plan.route_weights))
        given = [[[w != 0 for w in token] for token in sequence] for sequence in weights]

        def only(table: list[list[Any]]) -> list[list[Any]]:
            return [
                [list(compress(token, kept)) for token, kept in zip(sequence, keep, strict=True)]
                for sequence, keep in zip(table, given, strict=True)
            ]

        return only(ids), only(weights)

    def _split(self, values: Tensor) -> list[list[Any]]:
        return [part.tolist() for part in values.cpu().split(self._counts)]


def _side_by_side(parts: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """Named [N] columns -> [N, number of names]."""
    return torch.stack(list(parts.values()), 1) if parts else like.new_zeros((len(like), 0))


def _top_tokens(student: HiddenTarget, feedback: Feedback, packed: Tensor, top_k: int) -> dict[str, Tensor]:
    """Both models' favourites at the recorded states, and what the other model thinks of them."""
    temperature, teacher_temperature = feedback.context.temperature, feedback.context.effective_teacher_temperature
    parts: list[tuple[Tensor, ...]] = []
    vocabulary = student[slice(0, 1)].log_probs(temperature).shape[-1]
    for rows in chunks(len(packed), vocabulary):
        own = student[packed[rows]].log_probs(temperature)
        theirs = feedback.teacher[packed[rows]].log_probs(teacher_temperature)
        own_top = own.topk(min(top_k, vocabulary))
        their_top = theirs.topk(min(top_k, vocabulary))
        parts.append(
            (
                own_top.indices,
                own_top.values,
                theirs.gather(1, own_top.indices),
                their_top.indices,
                their_top.values,
                own.gather(1, their_top.indices),
            )
        )
    names = (
        "student_top_ids",
        "student_top_logp",
        "student_top_teacher_logp",
        "teacher_top_ids",
        "teacher_top_logp",
        "teacher_top_student_logp",
    )
    return {name: torch.cat(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
