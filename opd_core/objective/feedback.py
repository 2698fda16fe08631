"""Feedback: what the teacher said about the tokens the student wrote. Numbers only, no gradients, no decisions.

``log_ratio`` r_t = log p_teacher(y_t) - log pi_student(y_t); K_t = KL(pi || p) at the same state, so that
E[r_t | s_t] = -K_t for y_t ~ pi (arXiv 2606.22793).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.objective.divergences import entropy, reverse_kl
from opd_core.objective.targets import DenseTarget, Target, chunks


@dataclass(frozen=True)
class FeedbackContext:
    """What is known of the rollout beside both models' scores.

    ``behaviour_logp`` [B, T] are the log-probabilities under which the tokens were really sampled; None says that
    they were sampled from the student of this feedback itself. ``temperature`` is that of both softmaxes below.
    """

    behaviour_logp: Tensor | None = None
    temperature: float = 1.0


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
    values: Tensor | None = None  # [B, T] critic's estimate of the return
    bootstrap: Tensor | None = None  # [B] value after the last action: 0 at end of sequence
    truncated: Tensor | None = None  # [B] True where the length cap ended the rollout
    context: FeedbackContext = FeedbackContext()

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
        return cls.from_rows(
            DenseTarget(student_logits[selected]),
            DenseTarget(teacher_logits[selected]),
            tokens,
            mask,
            values=values,
            bootstrap=bootstrap,
            truncated=truncated,
            context=context,
        )

    @classmethod
    @torch.no_grad()
    def from_rows(
        cls,
        student: Target,
        teacher: Target,
        tokens: Tensor,
        mask: Tensor,
        *,
        values: Tensor | None = None,
        bootstrap: Tensor | None = None,
        truncated: Tensor | None = None,
        context: FeedbackContext | None = None,
    ) -> Feedback:
        """From packed rows (N = mask.sum()), one vocabulary-sized chunk at a time."""
        context = context or FeedbackContext()
        mask = mask.bool()
        sampled = tokens[mask]
        if not len(student) == len(teacher) == len(sampled):
            raise ValueError(
                f"{len(sampled)} action tokens, but {len(student)} student and {len(teacher)} teacher rows"
            )
        columns: list[list[Tensor]] = [[], [], [], [], []]
        for rows in row_chunks(student):
            student_logp = student[rows].log_probs(context.temperature)
            teacher_logp = teacher[rows].log_probs(context.temperature)
            ids = sampled[rows, None]
            for column, value in zip(
                columns,
                (
                    student_logp.gather(1, ids)[:, 0],
                    teacher_logp.gather(1, ids)[:, 0],
                    reverse_kl(student_logp, teacher_logp),
                    entropy(student_logp),
                    entropy(teacher_logp),
                ),
                strict=True,
            ):
                column.append(value)
        own, theirs, kl, own_entropy, their_entropy = (_join(column, tokens) for column in columns)
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
            values=values,
            bootstrap=bootstrap,
            truncated=truncated,
            context=context,
        )


def unpack(packed: Tensor, mask: Tensor) -> Tensor:
    """[N] values of the masked tokens in row-major order -> [B, T], 0 elsewhere."""
    full = packed.new_zeros(mask.shape)
    full[mask] = packed
    return full


def row_chunks(student: Target) -> list[slice]:
    """Slices of the rows that keep one chunk of log-probabilities small."""
    if not len(student):
        return []
    return chunks(len(student), student[0:1].log_probs(1.0).shape[-1])


def _join(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, device=like.device)
