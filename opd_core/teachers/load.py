"""From a spec to the models that teach."""

from __future__ import annotations

from collections.abc import Callable

import torch

from opd_core.models import (
    LanguageModel,
    check_trunk_and_head,
    check_vocabularies,
    load_model,
    vocabulary_warnings,
)
from opd_core.spec import JobSpec
from opd_core.spec.teacher import MixturePart
from opd_core.teachers.voice import Voice


def load_voices(
    spec: JobSpec,
    student: LanguageModel,
    *,
    device: torch.device | str,
    start: Callable[[LanguageModel], None] = lambda _: None,
    frozen_dtype: torch.dtype = torch.float32,
) -> tuple[list[Voice], list[str]]:
    """All teachers of a job, and warnings about their vocabularies; the student and they are cut to what all share.

    ``start`` gives a copy of the student the weights that the run began with. Teachers that never move are kept in
    ``frozen_dtype``; a moving average stays float32, or small steps would be lost. Raises UserError.
    """
    voices, warnings = [], []
    for path, wanted in spec.voices():
        reference = wanted.reference()
        decay = None
        if reference is not None:
            lm = load_model(reference, device=device, trainable=False, role=path)
            check_trunk_and_head(lm)
            check_vocabularies(student, lm)
            warnings += vocabulary_warnings(student, lm)
        elif wanted.self_ is not None and wanted.self_.weights == "current":
            lm = student
        else:
            lm = load_model(spec.student, device=device, trainable=False, role="student")
            start(lm)
            decay = wanted.self_.decay if wanted.self_ is not None and wanted.self_.weights == "ema" else None
        if lm is not student and decay is None and frozen_dtype != torch.float32:
            lm.model.to(frozen_dtype)
        part = wanted if isinstance(wanted, MixturePart) else None
        voices.append(
            Voice(
                path=path,
                lm=lm,
                context=wanted.context,
                weight=1.0 if part is None else part.weight,
                tags=None if part is None or part.tags is None else frozenset(part.tags),
                decay=decay,
            )
        )
    for voice in voices:  # a later teacher may have had the shorter vocabulary
        voice.lm.restrict_vocabulary(student.vocab_size)
    return voices, list(dict.fromkeys(warnings))
