"""Two models with different vocabularies, compared where both can speak.

On rows that are aligned (teachers/spans.py) both models are conditioned on the tokens that both have: every divergence,
log-ratio and force is that of these two conditional distributions. Nothing is invented for the others. A token that
only the student has gets no force at all there: were it given a probability of the teacher's (none, a floor, the
student's own) it would be pushed down without a reason, or be a refuge from feedback. What only the teacher has is left
out, and how much that is gets reported. Rows that are not aligned are told nothing: the target is the student itself,
and the plan gives them no force and no part in the count (plan.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opd_core.objective.targets import Target

# The logit of a token that is left out: no probability in any precision, but finite, so that 0 times it is 0.
_NOTHING = -1e6


@dataclass(frozen=True)
class Shared:
    """What of N rows over V student tokens two models can be compared at."""

    rows: Tensor  # [N] bool: the row is aligned
    absent: Tensor  # [V] bool: tokens of the student that the teacher does not have

    def __getitem__(self, rows: slice | Tensor) -> Shared:
        return Shared(self.rows[rows], self.absent)

    def hide(self, logits: Tensor) -> Tensor:
        """Logits [N, V] without the tokens that are not shared, on aligned rows."""
        return logits.masked_fill(self._hidden, _NOTHING)

    def condition(self, logp: Tensor) -> Tensor:
        """Log-probabilities [N, V], normalised or not, given that the token is shared; other rows as they are."""
        return torch.where(self.rows[:, None], self.hide(logp).log_softmax(-1), logp)

    def mass(self, logp: Tensor) -> Tensor:
        """[N] log-probability that the token is shared; 0 on rows that are not aligned."""
        inside = self.hide(logp).logsumexp(-1).clamp(max=0.0)
        return torch.where(self.rows, inside, torch.zeros_like(inside))

    def complete(self, teacher_logp: Tensor, student_logp: Tensor) -> Tensor:
        """The teacher's conditional log-probabilities [N, V] as a distribution over everything that the student has.

        For diagnostics: it agrees with the student about the tokens that it does not have.
        """
        return torch.where(self._hidden, student_logp, teacher_logp + self.mass(student_logp)[:, None])

    @property
    def _hidden(self) -> Tensor:
        return self.rows[:, None] & self.absent


@dataclass(frozen=True)
class ConditionedTarget:
    """A model's distributions, on aligned rows given that the token is shared."""

    target: Target
    shared: Shared

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: slice | Tensor) -> ConditionedTarget:
        return ConditionedTarget(self.target[rows], self.shared[rows])

    def log_probs(self, temperature: float) -> Tensor:
        """Conditioning and temperature commute."""
        return self.shared.condition(self.target.log_probs(temperature))


@dataclass(frozen=True)
class TranslatedTarget:
    """A teacher over W tokens of its own, read off at V student tokens: N rows, of which some are aligned.

    ``beside`` must say who the student is before anything is looked at. Its rows are not normalised: whoever looks
    conditions them on the shared tokens. What it has for absent tokens means nothing.
    """

    teacher: Target  # N rows over W; arbitrary where not aligned
    ids: Tensor  # [V] the teacher's id of each student token; arbitrary where absent
    shared: Shared
    student: Target | None = None  # N rows over V
    temperature: float = 1.0  # of the student's softmax

    def __len__(self) -> int:
        return len(self.teacher)

    def __getitem__(self, rows: slice | Tensor) -> TranslatedTarget:
        student = None if self.student is None else self.student[rows]
        return replace(self, teacher=self.teacher[rows], shared=self.shared[rows], student=student)

    def beside(self, student: Target, temperature: float) -> TranslatedTarget:
        """The same, with the student's own distribution where the teacher says nothing."""
        return replace(self, student=student, temperature=temperature)

    def log_probs(self, temperature: float) -> Tensor:
        """Read off at the student's tokens [N, V]; the student's own on rows that are not aligned."""
        if self.student is None:
            raise ValueError("a translated teacher has to know whom it stands beside")
        told = self.teacher.log_probs(temperature).index_select(1, self.ids)
        silent = ~self.shared.rows
        if bool(silent.any()):
            told[silent] = self.student[silent].log_probs(self.temperature).to(told.dtype)
        return told
