"""What a method may want to know of the rollouts beside both models' scores."""

from __future__ import annotations

from torch import Tensor

from opd_core.models import LanguageModel
from opd_core.objective.feedback import FeedbackContext
from opd_core.rollout import Rollouts
from opd_core.spec import MethodSpec


def feedback_context(
    method: MethodSpec,
    student: LanguageModel,
    rollouts: Rollouts,
    *,
    group: Tensor,
    reward: Tensor | None,
    from_data: Tensor | None = None,
) -> FeedbackContext:
    """``group`` [B] numbers the prompts of the step; ``reward`` [B] is the verifier's, ``from_data`` [B] marks rows
    taken from data; None where nothing needs it.
    """
    objective = method.objective
    return FeedbackContext(
        behaviour_logp=rollouts.behaviour_logp,
        temperature=objective.temperature,
        teacher_temperature=objective.effective_teacher_temperature,
        reward=reward,
        group=group,
        from_data=from_data,
        eos_ids=student.eos_ids,
        special_ids=special_ids(student),
    )


def special_ids(lm: LanguageModel) -> tuple[int, ...]:
    """Special tokens that do not end a completion."""
    special = {int(token) for token in lm.tokenizer.all_special_ids}
    return tuple(sorted(token for token in special if token < lm.vocab_size and token not in lm.eos_ids))
