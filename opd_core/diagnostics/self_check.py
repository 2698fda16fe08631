"""The run-start self-check: is the objective the one that was asked for, and are the scores where they should be?

On the first batch, before any update, the distillation alone (no regularizer, no verifier, a critic that says 0):
- with teacher scores = student scores + 1e-6 noise the update must vanish, unless the method's optimum lies elsewhere;
- with the real scores it must not;
- the teacher's log-probability of the student's tokens must be higher at the right position than one off;
- the cosine of the update to the exact reverse-KL gradient is recorded: it says what is being optimised.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from opd_core.diagnostics.records import token_rows
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.objective.shared import TranslatedTarget
from opd_core.objective.targets import DenseTarget, HiddenTarget, Target
from opd_core.rollout import Rollouts
from opd_core.spec import MethodSpec
from opd_core.spec.variables.objective import DirectObjective

TOLERANCE = 1e-5
_MAX_TOKENS = 512


@dataclass(frozen=True)
class SelfCheck:
    """What was found. Forces are the largest absolute logit force on any token; ``alignment`` is in nats.

    ``force_at_teacher`` is None where the method's optimum is not the teacher: ``shift`` says why.
    """

    force_at_teacher: float | None
    shift: str | None
    force: float
    cosine_to_reverse_kl: float
    alignment: dict[str, float]  # offset "-1", "0", "+1" -> mean teacher log-probability of the tokens

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def aligned(self) -> bool:
        """Whether the teacher prefers the student's tokens where they stand to one position off."""
        return self.alignment["0"] >= max(self.alignment["-1"], self.alignment["+1"])


@torch.no_grad()
def self_check(
    method: MethodSpec,
    rollouts: Rollouts,
    student: HiddenTarget,
    teacher: Target,
    *,
    eos_ids: tuple[int, ...] = (),
    special_ids: tuple[int, ...] = (),
) -> SelfCheck:
    """Check on a sample of the first batch: about 512 tokens, at least one sequence."""
    method = method.distillation()
    rollouts, tokens = _spread(rollouts)
    student_logits = student.head(student.hidden[tokens]).double()
    told, shared = teacher[tokens], None
    if isinstance(told, TranslatedTarget):
        told, shared = told.beside(DenseTarget(student_logits), 1.0), told.shared
    teacher_logits = told.log_probs(1.0).double()  # logits up to a constant
    generator = torch.Generator(device=student_logits.device).manual_seed(0)
    noise = torch.randn(student_logits.shape, generator=generator, dtype=torch.float64, device=student_logits.device)

    def push(asked: MethodSpec, other: Tensor) -> Tensor:
        feedback = Feedback.from_rows(
            DenseTarget(student_logits),
            DenseTarget(other),
            rollouts.tokens,
            rollouts.mask,
            context=_context(asked, student_logits, len(rollouts), eos_ids, special_ids),
            shared=shared,
        )
        feedback = replace(
            feedback,
            values=torch.zeros_like(feedback.log_ratio),
            bootstrap=feedback.log_ratio.new_zeros(len(rollouts)),
            truncated=rollouts.truncated,
        )
        return force(build_plan(asked, feedback), student_logits)

    temperature = method.objective.temperature
    exact = MethodSpec(objective=DirectObjective(divergence="reverse_kl", temperature=temperature))
    real = push(method, teacher_logits)
    at_teacher = None if method.shift else float(push(method, student_logits + 1e-6 * noise).abs().max())
    return SelfCheck(
        force_at_teacher=at_teacher,
        shift=method.shift,
        force=float(real.abs().max()),
        cosine_to_reverse_kl=float(
            torch.cosine_similarity(real.flatten(), push(exact, teacher_logits).flatten(), dim=0)
        ),
        alignment=_alignment(rollouts, DenseTarget(teacher_logits).log_probs(temperature)),
    )


def _context(
    method: MethodSpec, student_logits: Tensor, sequences: int, eos_ids: tuple[int, ...], special_ids: tuple[int, ...]
) -> FeedbackContext:
    """Before the first update the reference is the student itself; no verifier has spoken."""
    objective = method.objective
    return FeedbackContext(
        temperature=objective.temperature,
        teacher_temperature=objective.effective_teacher_temperature,
        reference=DenseTarget(student_logits),
        reward=student_logits.new_zeros(sequences),
        group=torch.arange(sequences, device=student_logits.device),
        eos_ids=eos_ids,
        special_ids=special_ids,
    )


def _spread(rollouts: Rollouts) -> tuple[Rollouts, Tensor]:
    """Sequences from all over the batch (it is sorted by length), and where their tokens lie in packed order."""
    lengths = rollouts.lengths
    budget = max(1, _MAX_TOKENS // int(lengths.max()))
    step = -(-len(rollouts) // budget)
    chosen = torch.arange(0, len(rollouts), step, device=lengths.device)
    spans = [token_rows(lengths, int(sequence)) for sequence in chosen]
    tokens = torch.cat([torch.arange(span.start, span.stop, device=lengths.device) for span in spans])
    return rollouts.reorder(chosen), tokens


def _alignment(rollouts: Rollouts, teacher_logp: Tensor) -> dict[str, float]:
    """Mean log p(y_t) read from the teacher's rows at t - 1, t and t + 1, over tokens between two other actions."""
    packed, place = rollouts.tokens[rollouts.mask], rollouts.mask.nonzero()[:, 1]
    sums, count = {-1: 0.0, 0: 0.0, 1: 0.0}, 0
    for sequence in range(len(rollouts)):
        span = token_rows(rollouts.lengths, sequence)
        inner = torch.arange(span.start, span.stop, device=packed.device)[1:-1]
        inner = inner[place[inner + 1] - place[inner - 1] == 2]  # where an environment spoke no row is one off
        count += len(inner)
        for offset in sums:
            sums[offset] += float(teacher_logp[inner + offset].gather(1, packed[inner, None]).sum())
    return {f"{offset:+d}" if offset else "0": total / max(1, count) for offset, total in sums.items()}
