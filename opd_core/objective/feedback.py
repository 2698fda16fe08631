"""Feedback: what the teacher said about the tokens the student wrote. Numbers only, no gradients, no decisions.

``log_ratio`` r_t = log p_teacher(y_t) - log pi_student(y_t); K_t = KL(pi || p) at the same state, so that
E[r_t | s_t] = -K_t for y_t ~ pi (arXiv 2606.22793).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from opd_core.objective.candidates import Candidates, join, top_candidates
from opd_core.objective.divergences import entropy, reverse_kl
from opd_core.objective.shared import ConditionedTarget, Shared, TranslatedTarget
from opd_core.objective.targets import DenseTarget, Target, chunks, scan_budget

T = TypeVar("T")


class MissingFeedback(ValueError):
    """A method needs something about the rollout that the feedback does not hold."""


@dataclass(frozen=True)
class FeedbackContext:
    """What is known of the rollout beside both models' scores. None = not known.

    ``temperature`` is that of the student's softmax, ``teacher_temperature`` (None = the same) that of the teacher's.
    ``special_ids`` are special tokens that do not end a sequence.
    """

    behaviour_logp: Tensor | None = None  # [B, T] under which the tokens were sampled; None = the student itself
    temperature: float = 1.0
    teacher_temperature: float | None = None
    reference: Target | None = None  # N rows: the student at the start of the run
    reward: Tensor | None = None  # [B] the verifier's
    group: Tensor | None = None  # [B] equal for the samples of one prompt
    from_data: Tensor | None = None  # [B] bool: the row was taken from data, not written by the student
    eos_ids: tuple[int, ...] = ()
    special_ids: tuple[int, ...] = ()

    @property
    def effective_teacher_temperature(self) -> float:
        return self.temperature if self.teacher_temperature is None else self.teacher_temperature


@dataclass(frozen=True)
class Feedback:
    """Per-token feedback on a batch of rollouts; [B, T] fields are 0 off the mask, the models have its N rows.

    N = number of masked tokens, in row-major order. Logarithms are natural, quantities in nats.
    """

    tokens: Tensor  # [B, T] sampled token ids
    mask: Tensor  # [B, T] True where the student acted
    student_logp: Tensor  # [B, T] log pi(y_t)
    teacher_logp: Tensor  # [B, T] log p(y_t)
    log_ratio: Tensor  # [B, T]
    kl: Tensor  # [B, T] K_t = KL(student || teacher)
    student_entropy: Tensor  # [B, T]
    teacher_entropy: Tensor  # [B, T]
    student: Target  # N rows
    teacher: Target  # N rows
    values: Tensor | None = None  # [B, T] the critic's output: V, or U where credit.critic.form splits K off
    bootstrap: Tensor | None = None  # [B] V after the last action: 0 at end of sequence
    truncated: Tensor | None = None  # [B] True where the length cap ended the rollout
    shared: Shared | None = None  # what the models are compared at; None = all tokens of all rows
    shared_mass: tuple[Tensor, Tensor] | None = None  # [N] each: student's and teacher's probability of shared tokens
    context: FeedbackContext = FeedbackContext()
    _scanned: dict[bool, Candidates] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_logits(
        cls,
        student_logits: Tensor,
        teacher_logits: Tensor,
        tokens: Tensor,
        mask: Tensor,
        *,
        values: Tensor | None = None,
        bootstrap: Tensor | None = None,
        truncated: Tensor | None = None,
        context: FeedbackContext | None = None,
    ) -> Feedback:
        """From dense logits [B, T, V] that predict ``tokens`` [B, T] (tests and the laboratory)."""
        selected = mask.bool()
        found = cls.from_rows(
            DenseTarget(student_logits[selected]), DenseTarget(teacher_logits[selected]), tokens, mask, context=context
        )
        return replace(found, values=values, bootstrap=bootstrap, truncated=truncated)

    @classmethod
    @torch.no_grad()
    def from_rows(
        cls,
        student: Target,
        teacher: Target,
        tokens: Tensor,
        mask: Tensor,
        *,
        context: FeedbackContext | None = None,
        top_k: int = 0,
        shared: Shared | None = None,
    ) -> Feedback:
        """From packed rows (N = mask.sum()), one vocabulary-sized chunk at a time.

        ``top_k`` favourites of both models are kept from the same scan (``candidates.wanted_k(method)`` says how many a
        method needs; asked for later they cost another scan). Where only part of it is ``shared`` (a translated teacher
        says so itself) all models, the reference among them, are given that a token is shared.
        """
        context = context or FeedbackContext()
        if isinstance(teacher, TranslatedTarget):
            shared, teacher = teacher.shared, teacher.beside(student, context.temperature)
        mask = mask.bool()
        sampled = tokens[mask]
        if not len(student) == len(teacher) == len(sampled):
            raise ValueError(
                f"{len(sampled)} action tokens, but {len(student)} student and {len(teacher)} teacher rows"
            )
        columns: list[list[Tensor]] = [[], [], [], [], [], [], []]
        candidates: dict[bool, list[Candidates]] = {}
        for rows in row_chunks(student):
            student_logp = student[rows].log_probs(context.temperature)
            teacher_logp = teacher[rows].log_probs(context.effective_teacher_temperature)
            inside = [torch.zeros_like(student_logp[:, 0])] * 2
            if shared is not None:
                here = shared[rows]
                inside = [here.mass(logp) for logp in (student_logp, teacher_logp)]
                student_logp, teacher_logp = here.condition(student_logp), here.condition(teacher_logp)
            ids = sampled[rows, None]
            for column, value in zip(
                columns,
                (
                    student_logp.gather(1, ids)[:, 0],
                    teacher_logp.gather(1, ids)[:, 0],
                    reverse_kl(student_logp, teacher_logp),
                    entropy(student_logp),
                    entropy(teacher_logp),
                    *inside,
                ),
                strict=True,
            ):
                column.append(value)
            # With special tokens among the favourites and without: supports may want the former, routes the latter.
            for without in {False, bool(context.special_ids)} if top_k else ():
                excluded = context.special_ids if without else ()
                found = top_candidates(student_logp, teacher_logp, top_k, excluded)
                candidates.setdefault(without, []).append(found)
        own, theirs, kl, own_entropy, their_entropy, *inside = (_join(column, tokens) for column in columns)
        if shared is not None:
            student, teacher = ConditionedTarget(student, shared), ConditionedTarget(teacher, shared)
            context = _given(shared, context, unpack(inside[0], mask))
        return cls(
            tokens=tokens,
            mask=mask,
            student_logp=unpack(own, mask),
            teacher_logp=unpack(theirs, mask),
            log_ratio=unpack(theirs - own, mask),
            kl=unpack(kl, mask),
            student_entropy=unpack(own_entropy, mask),
            teacher_entropy=unpack(their_entropy, mask),
            student=student,
            teacher=teacher,
            shared=shared,
            shared_mass=None if shared is None else (inside[0].exp(), inside[1].exp()),
            context=context,
            _scanned={without: join(parts) for without, parts in candidates.items()},
        )

    def toward(self, target: Target) -> Feedback:
        """The same rollouts, compared with ``target`` (whose temperatures are inside) instead of the teacher."""
        aimed = Feedback.from_rows(
            self.student,
            target,
            self.tokens,
            self.mask,
            context=replace(self.context, teacher_temperature=1.0),
            shared=self.shared,
        )
        return replace(aimed, values=self.values, bootstrap=self.bootstrap, truncated=self.truncated)

    def candidates(self, k: int, *, without_special: bool = True) -> Candidates:
        """Both models' k favourites of each of the N rows. Special tokens are nobody's favourites unless asked for."""
        excluded = self.context.special_ids if without_special else ()
        known = self._scanned.get(bool(excluded))
        if known is None or known.k < min(k, self.vocabulary):
            known = self._scan(k, excluded)
            self._scanned[bool(excluded)] = known
        return known.first(k)

    @property
    def vocabulary(self) -> int:
        """V; 0 for a batch without rows."""
        return self.student[0:1].log_probs(1.0).shape[-1] if len(self.student) else 0

    @property
    def heard(self) -> Tensor:
        """[B, T] bool: the tokens of which the teacher says something."""
        return self.mask if self.shared is None else unpack(self.shared.rows, self.mask)

    @property
    def ends(self) -> Tensor:
        """[B, T] bool: the token that ended its sequence. The same id before it ended a turn only."""
        ends = torch.zeros_like(self.mask)
        for token in self.context.eos_ids:
            ends |= self.tokens == token
        return ends & self.mask & (self.mask.flip(1).cumsum(1).flip(1) == 1)

    @torch.no_grad()
    def _scan(self, k: int, excluded: tuple[int, ...]) -> Candidates:
        parts = [
            top_candidates(
                self.student[rows].log_probs(self.context.temperature),
                self.teacher[rows].log_probs(self.context.effective_teacher_temperature),
                k,
                excluded,
            )
            for rows in row_chunks(self.student)
        ]
        if not parts:
            nothing = self.log_ratio.new_zeros((0, k))
            return top_candidates(nothing, nothing, k)
        return join(parts)


def require(value: T | None, what: str, who: str) -> T:
    """``value``, or one sentence that says which method misses what."""
    if value is None:
        raise MissingFeedback(f"{who} needs {what}, which this feedback does not hold")
    return value


def unpack(packed: Tensor, mask: Tensor) -> Tensor:
    """[N] values of the masked tokens in row-major order -> [B, T], 0 elsewhere."""
    full = packed.new_zeros(mask.shape)
    full[mask] = packed
    return full


def row_chunks(student: Target) -> list[slice]:
    """Slices of the rows that keep one chunk of log-probabilities small."""
    if not len(student):
        return []
    first = student[0:1].log_probs(1.0)
    return chunks(len(student), first.shape[-1], budget=scan_budget(first.device))


def _given(shared: Shared, context: FeedbackContext, inside: Tensor) -> FeedbackContext:
    """The context of models that are conditioned on shared tokens; ``inside`` [B, T] is the student's log-mass there.

    Tokens were sampled from the whole vocabulary: taken off both, the mass leaves the ratio pi / mu as it is.
    """
    behaviour, reference = context.behaviour_logp, context.reference
    return replace(
        context,
        behaviour_logp=None if behaviour is None else behaviour - inside,
        reference=None if reference is None else ConditionedTarget(reference, shared),
    )


def _join(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, device=like.device)
