"""The objective on the first batch, before any update: does it vanish where it has to, do the scores fit the tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from opd_core.diagnostics.self_check import TOLERANCE, self_check
from opd_core.objective.proposals import propose
from opd_core.objective.shared import TranslatedTarget
from opd_core.objective.targets import HiddenTarget, Target
from opd_core.rollout import completion_hidden
from opd_core.spec import JobSpec, UserError
from opd_core.training import messages
from opd_core.training.context import special_ids
from opd_core.training.messages import Emit
from opd_core.training.states import sorted_by_length
from opd_core.training.step import Trainer, ask


def first_check(t: Trainer, emit: Emit, warn: Callable[..., None]) -> dict[str, Any]:
    """What was found, for the report. Raises RuntimeError for a defect of the objective, UserError where too little of
    the text is aligned with a teacher of another tokenizer.
    """
    cursor = t.order.cursor
    with t.autocast, torch.no_grad():
        written = sorted_by_length(t.writer.fresh(t.order.take(t.spec.rollout.prompts_per_step), step=1, progress=0.0))
        rollouts = written.rollouts
        student = HiddenTarget(completion_hidden(t.student.trunk, rollouts), t.student.head)
        question = ask(t, written)
        if t.teacher.wants_proposals:
            question = replace(question, proposed=propose(t.method, student, special_ids(t.student)))
        told = t.teacher.score(question, micro_tokens=t.micro_tokens).scores.rows
        _check_aligned(t.spec, told, emit)
        found = self_check(
            t.method,
            rollouts,
            student,
            told,
            eos_ids=t.student.eos_ids,
            special_ids=special_ids(t.student),
        )
    t.order.cursor = cursor  # the same problems are the first step's
    if found.force_at_teacher is not None and found.force_at_teacher > TOLERANCE:
        raise RuntimeError(
            f"self-check: the update does not vanish where teacher equals student (force "
            f"{found.force_at_teacher:.2g} > {TOLERANCE:g}); this is a defect of the objective"
        )
    if found.force <= TOLERANCE:
        warn("the teacher scores the student's tokens exactly as the student does: there is nothing to learn")
    if not found.aligned:
        offsets = ", ".join(f"{offset}: {nats:.2f}" for offset, nats in found.alignment.items())
        warn(
            "the teacher's scores fit the student's tokens better one position off than where they stand (mean "
            f"log-probability at offset {offsets}): check that both models read the same tokens"
        )
    vanishes = (
        f"optimum elsewhere than at the teacher ({found.shift}), not checked there"
        if found.force_at_teacher is None
        else f"update vanishes at teacher = student ({found.force_at_teacher:.1e})"
    )
    told_of = found.as_dict()
    emit(
        messages.event(
            "self_check",
            f"{vanishes}; force with the real scores {found.force:.1e}; cosine to the exact reverse-KL gradient "
            f"{found.cosine_to_reverse_kl:.2f}",
            **told_of,
        )
    )
    return told_of


def least_aligned(spec: JobSpec) -> float:
    """The share of tokens that a teacher with another tokenizer has to share; 0 for any other teacher."""
    teacher = spec.teacher
    return 0.0 if teacher is None or teacher.tokenizer is None else teacher.tokenizer.min_aligned


def _check_aligned(spec: JobSpec, told: Target, emit: Emit) -> None:
    if not isinstance(told, TranslatedTarget):
        return
    aligned, least = float(told.shared.rows.float().mean()), least_aligned(spec)
    tokens = int((~told.shared.absent).sum())
    sentence = (
        f"{aligned:.1%} of the first batch's tokens are aligned with the teacher's, which has {tokens:,} of the "
        f"student's {len(told.shared.absent):,} tokens"
    )
    if aligned < least:
        raise UserError(
            f"teacher.tokenizer.min_aligned: {least:g} is not reached: {sentence}; choose a teacher whose "
            "tokenizer is closer to the student's, or accept less",
            param="teacher.tokenizer.min_aligned",
            code="tokenizers_too_different",
        )
    emit(messages.event("aligned", sentence, aligned=aligned, shared_tokens=tokens))
