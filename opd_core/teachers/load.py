"""From a spec to the models that teach."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from opd_core.models import (
    LanguageModel,
    cast_parameters,
    check_trunk_and_head,
    check_vocabularies,
    load_model,
    load_student,
    vocabulary_warnings,
    without_adapter,
)
from opd_core.runs.endpoints import endpoint
from opd_core.runs.settings import Settings
from opd_core.servers import Server
from opd_core.spec import JobSpec
from opd_core.spec.combinations import students_favourites
from opd_core.spec.teacher import MixturePart, SelfTeacher
from opd_core.tasks import Task, check_context
from opd_core.teachers.remote import RemoteTeacher
from opd_core.teachers.teacher import Teacher
from opd_core.teachers.translator import Translator
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
    voices: list[Voice] = []
    warnings: list[str] = []
    if spec.teacher is not None and spec.teacher.endpoint is not None:  # a server; its vocabulary is asked later
        return [], []
    for path, wanted in spec.voices():
        reference = wanted.reference()
        decay = translator = None
        if reference is not None:
            lm = load_model(
                reference,
                device=device,
                trainable=False,
                role=path,
                dtype=frozen_dtype,
                quantization=wanted.quantization,
            )
            check_trunk_and_head(lm)
            if spec.teacher is not None and spec.teacher.tokenizer is not None:
                translator = Translator(student, lm, spec.task, param=f"{path}.tokenizer")
            else:
                check_vocabularies(student, lm)
                warnings += vocabulary_warnings(student, lm)
        else:
            assert wanted.self_ is not None
            lm = _of_the_student(spec, wanted.self_, student, device=device, start=start)
            decay = wanted.self_.decay if wanted.self_.weights == "ema" else None
        if lm.model is not student.model and decay is None:
            cast_parameters(lm.model, frozen_dtype)
        part = wanted if isinstance(wanted, MixturePart) else None
        voices.append(
            Voice(
                path=path,
                lm=lm,
                context=wanted.context,
                weight=1.0 if part is None else part.weight,
                tags=None if part is None or part.tags is None else frozenset(part.tags),
                decay=decay,
                translator=translator,
            )
        )
    for voice in voices:  # a later teacher may have had the shorter vocabulary
        if voice.translator is None:
            voice.lm.restrict_vocabulary(student.vocab_size)
    return voices, list(dict.fromkeys(warnings))


def _of_the_student(
    spec: JobSpec,
    wanted: SelfTeacher,
    student: LanguageModel,
    *,
    device: torch.device | str,
    start: Callable[[LanguageModel], None],
) -> LanguageModel:
    """The student as its own teacher. Under an adapter its start is the model below it: no copy is held."""
    if wanted.weights == "current":
        return student
    if wanted.weights == "initial" and student.adapter is not None and spec.from_ is None:
        return without_adapter(student)
    copy = load_student(spec, device=device, trainable=False)
    start(copy)
    return copy


def assemble(spec: JobSpec, voices: Sequence[Voice], task: Task, student: LanguageModel) -> Teacher:
    """The loaded teachers (or the server) with the task that they are asked about. Raises UserError.

    All that can be checked is, but for a server: it says what it can do when it is (``RemoteTeacher.check``).
    """
    translated = {voice.path: voice for voice in voices if voice.translator is not None}
    for path, wanted in spec.voices():
        if wanted.context is not None:
            reads, lm = task, student
            if path in translated:
                reads, lm = translated[path].task(task), translated[path].lm
            check_context(reads, wanted.context, lm.tokenizer, param=f"{path}.context", vocab_size=lm.vocab_size)
    teacher = make_teacher(spec, voices, task, student)
    if not isinstance(teacher, RemoteTeacher):
        teacher.check_tags()
    return teacher


def make_teacher(spec: JobSpec, voices: Sequence[Voice], task: Task, student: LanguageModel) -> Teacher:
    """The same without a look at the task's problems."""
    if spec.teacher is None or spec.teacher.endpoint is None:
        return Teacher(voices, task)
    name = spec.teacher.endpoint
    server = Server(name, endpoint(Settings(), name, param="teacher.endpoint"))
    return RemoteTeacher(
        server,
        task,
        vocabulary=student.vocab_size,
        context=spec.teacher.context,
        wants_proposals=students_favourites(spec.method_spec()) > 0,
    )
