"""A recorded step as feedback again: what a plan needs, rebuilt from token records.

Per-token numbers are the recorded ones. The models' distributions are known on both models' favourites and the sampled
token; what is left of each model's mass is spread evenly over the other tokens. Where the records hold the whole
vocabulary nothing is left to spread, and the feedback is the step's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from opd_core.diagnostics.exactness import Known
from opd_core.diagnostics.records import BatchFacts
from opd_core.objective.credit import remaining
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.plan import PlanState
from opd_core.objective.shared import Shared
from opd_core.objective.targets import SparseTarget
from opd_core.spec import MethodSpec

Row = Mapping[str, Any]


class Recorded:
    """The recorded sequences of one step, in the order of ``n``: tensors of B rows and N tokens."""

    def __init__(self, rows: Sequence[Row], facts: BatchFacts, *, complete: bool = True) -> None:
        """``complete``: the facts were recorded with the step; False where they were put together later."""
        if not rows or not all(row["length"] for row in rows):
            raise ValueError("a step is planned again from recorded sequences with at least one token each")
        self.rows, self.facts, self.complete = rows, facts, complete
        self.counts = [int(row["length"]) for row in rows]
        self.mask = torch.arange(max(self.counts)) < torch.tensor(self.counts)[:, None]

    def has(self, name: str) -> bool:
        """Whether a column that may be null was recorded."""
        return all(row.get(name) is not None for row in self.rows)

    def packed(self, name: str) -> Tensor:
        """[N, ...] of a token column. Null numbers are 0."""
        found = [value for row in self.rows for value in row[name]]
        return torch.tensor([0.0 if value is None else value for value in found])

    def padded(self, name: str) -> Tensor:
        """[B, T] of a token column."""
        full = torch.zeros(self.mask.shape)
        full[self.mask] = self.packed(name)
        return full

    @cached_property
    def tokens(self) -> Tensor:
        """[B, T] sampled ids."""
        full = torch.zeros(self.mask.shape, dtype=torch.long)
        full[self.mask] = self.packed("token_ids").long()
        return full

    @cached_property
    def _favourites(self) -> tuple[Tensor, Tensor]:
        """Ids [N, M] of the sampled token, the student's and the teacher's favourites; where each is listed first."""
        ids = torch.cat(
            [self.tokens[self.mask][:, None], *(self.packed(name) for name in ("student_top_ids", "teacher_top_ids"))],
            1,
        ).long()
        ordered = ids.sort(dim=1, stable=True)
        first = torch.ones_like(ids, dtype=torch.bool)
        first[:, 1:] = ordered.values[:, 1:] != ordered.values[:, :-1]
        return ids, torch.zeros_like(first).scatter(1, ordered.indices, first)

    def _target(self, temperature: float, *columns: str) -> SparseTarget:
        sampled, *favourites = (self.packed(name) for name in columns)
        ids, keep = self._favourites
        logp = torch.cat([sampled[:, None], *favourites], 1).masked_fill(~keep, -torch.inf)
        return SparseTarget(ids, logp, keep, self.facts.vocabulary, temperature)

    @cached_property
    def student(self) -> SparseTarget:
        """N rows."""
        return self._target(self.facts.temperature, "logp_student", "student_top_logp", "teacher_top_student_logp")

    @cached_property
    def teacher(self) -> SparseTarget:
        """N rows."""
        return self._target(
            self.facts.teacher_temperature, "logp_teacher", "student_top_teacher_logp", "teacher_top_logp"
        )

    @cached_property
    def reference(self) -> SparseTarget | None:
        """N rows: the student at the start of the run, where the run's own method looked at it."""
        if not self.has("logp_reference"):
            return None
        columns = ("logp_reference", "student_top_reference_logp", "teacher_top_reference_logp")
        return self._target(self.facts.temperature, *columns)

    @cached_property
    def shared(self) -> Shared | None:
        """Which rows were aligned with a teacher of another tokenizer; None where it had the student's.

        What was recorded of both models is conditioned on shared tokens already: none has to be left out again.
        """
        if not all("aligned" in row["gate_names"] for row in self.rows):
            return None
        opened = [token[row["gate_names"].index("aligned")] > 0 for row in self.rows for token in row["gate_weights"]]
        return Shared(torch.tensor(opened), torch.zeros(self.facts.vocabulary, dtype=torch.bool))

    def known(self) -> Known:
        """What the exactness of a plan depends on."""
        facts = self.facts
        special = torch.tensor(facts.special_ids, dtype=torch.long)
        usable = [
            int((~torch.isin(self.packed(name).long(), special)).sum(1).min())
            for name in ("student_top_ids", "teacher_top_ids")
        ]
        return Known(
            sequences=len(self.rows),
            of_sequences=facts.sequences,
            whole_vocabulary=int(self._favourites[1].sum(1).min()) >= facts.vocabulary,
            favourites=min(usable),
            temperatures=(facts.temperature, facts.teacher_temperature),
            behaviour=self.has("logp_behaviour"),
            critic=self.has("values"),
            reward_mean="reward_mean" in facts.running,
            complete=self.complete,
        )

    def state(self, gate_seed: int) -> PlanState:
        """The state of the run as the step's plan saw it; ``gate_seed`` drives random gates."""
        facts = self.facts
        return PlanState(
            progress=facts.progress,
            running=facts.running,
            generator=torch.Generator().manual_seed(gate_seed),
            critic_ready=facts.critic_ready,
        )

    def feedback(self, method: MethodSpec, own: MethodSpec) -> Feedback:
        """The step's feedback for ``method``; ``own`` is the method that it was trained under."""
        objective, facts = method.objective, self.facts
        context = FeedbackContext(
            behaviour_logp=self.padded("logp_behaviour") if self.has("logp_behaviour") else None,
            temperature=objective.temperature,
            teacher_temperature=objective.effective_teacher_temperature,
            reference=self.reference,
            reward=self._reward(),
            group=torch.tensor([row["problem"] for row in self.rows]).unique(return_inverse=True)[1],
            from_data=torch.tensor([row["origin"] == "data" for row in self.rows])
            if "origin" in method.needs
            else None,
            eos_ids=facts.eos_ids,
            special_ids=facts.special_ids,
        )
        if (facts.temperature, facts.teacher_temperature) == (
            objective.temperature,
            objective.effective_teacher_temperature,
        ):
            found = Feedback(
                tokens=self.tokens,
                mask=self.mask,
                student_logp=self.padded("logp_student"),
                teacher_logp=self.padded("logp_teacher"),
                log_ratio=self.padded("log_ratio"),
                kl=self.padded("kl"),
                student_entropy=self.padded("entropy_student"),
                teacher_entropy=self.padded("entropy_teacher"),
                student=self.student,
                teacher=self.teacher,
                shared=self.shared,
                context=context,
            )
        else:
            found = Feedback.from_rows(
                self.student, self.teacher, self.tokens, self.mask, context=context, shared=self.shared
            )
        return replace(
            found,
            values=self._critic(method, own),
            bootstrap=torch.tensor([row.get("bootstrap") or 0.0 for row in self.rows]),
            truncated=torch.tensor([bool(row["truncated"]) for row in self.rows]),
        )

    def _reward(self) -> Tensor | None:
        right = [row["correct"] for row in self.rows]
        return None if None in right else torch.tensor([float(one) for one in right])

    def _critic(self, method: MethodSpec, own: MethodSpec) -> Tensor | None:
        """[B, T] what a critic would have said under ``method``; one that says 0 where the run has none."""
        if method.credit.estimator != "gae":
            return None
        if not self.has("values"):
            return torch.zeros(self.mask.shape)
        asked, taught = method.credit, own.credit
        if asked.critic.form == taught.critic.form and self.has("critic_outputs"):
            return self.padded("critic_outputs")
        # V is what critics of all forms are about: say it in the other form's words (gae.py).
        values = self.padded("values")
        match asked.critic.form:
            case "value":
                return values
            case "per_token":
                return values / remaining(values, self.mask, asked.gamma).clamp(min=1.0)
        known = self.padded("kl") + (
            self.facts.running.get("reward_mean", 0.0) if asked.critic.form == "differential" else 0.0
        )
        return torch.where(self.mask, (values + known) / max(asked.gamma, 1e-6), 0.0)
