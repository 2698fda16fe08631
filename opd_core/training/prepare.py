"""From a resolved spec to everything that a step needs, and back to where a checkpoint left it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from opd_core.models import (
    LanguageModel,
    ValueHead,
    can_recompute,
    cast_parameters,
    check_decoding,
    check_trunk_and_head,
    compiled_trunk,
    copy_weights,
    load_student,
    token_texts,
)
from opd_core.objective.plan import PlanState
from opd_core.runs.artifacts import RunFiles
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec, UserError
from opd_core.tasks import demo_models, load_task
from opd_core.teachers import RemoteTeacher, assemble, load_voices
from opd_core.training import checkpoint, messages
from opd_core.training.budget import Budget
from opd_core.training.device import autocast, frozen_dtype
from opd_core.training.engine import choose_engine, served_student
from opd_core.training.learner import Learner, student_learner
from opd_core.training.messages import Emit
from opd_core.training.prompts import PromptOrder
from opd_core.training.ranks import Ranks
from opd_core.training.replay import Replay
from opd_core.training.start import take_start
from opd_core.training.states import Writer
from opd_core.training.step import Trainer
from opd_core.training.student_step import StudentStep


def prepare(
    spec: JobSpec,
    files: RunFiles,
    device: torch.device,
    *,
    ranks: Ranks,
    attempt: int,
    emit: Emit,
    warn: Callable[..., None],
) -> Trainer:
    """Load and check models and data. ``warn`` takes sentences for the report. Raises UserError."""
    _build_demo_models(spec, emit)
    emit(messages.phase("loading models"))
    student = load_student(spec, device=device, trainable=True)
    take_start(spec, files, student)
    check_trunk_and_head(student)
    check_decoding(student)
    if spec.batching.gradient_checkpointing and not can_recompute(student.model):
        raise UserError(
            f"batching.gradient_checkpointing: the layers of '{student.name}' ({student.model.config.model_type}) "
            "cannot be computed again; leave it out",
            param="batching.gradient_checkpointing",
            code="unsupported_model",
        )
    trunk = student.trunk
    if spec.student.compile:
        emit(messages.phase("compiling"))
        with autocast(spec, device):
            trunk = compiled_trunk(student)
    # A frozen model is computed with in bfloat16 anyway: half the memory. The student stays float32.
    computed = frozen_dtype(spec, device)
    voices, differences = load_voices(
        spec, student, device=device, start=lambda copy: take_start(spec, files, copy), frozen_dtype=computed
    )
    for voice in voices:
        if spec.rollout.teacher_writes and voice.lm is not student:
            check_decoding(voice.lm)
    size = student.vocab_size
    warn(*differences)

    emit(messages.phase("loading data"))
    task = load_task(spec.task, student.tokenizer, seed=spec.seed, vocab_size=size, eos_ids=student.eos_ids)
    teacher = assemble(spec, voices, task, student)
    if isinstance(teacher, RemoteTeacher):
        can = teacher.check(spec.method_spec())
        emit(messages.event("teacher_server", can.sentence, **can.as_data()))
    served = served_student(spec.rollout, student, run=files.url)
    if served is not None:
        emit(messages.event("rollout_server", served.sentence, handover=served.handover.how))
    method = spec.method_spec()
    warn(*task.warnings, *spec.warnings())
    if not files.exists("vocabulary.json"):
        files.write_json("vocabulary.json", token_texts(student.tokenizer, size))

    settings = method.credit.critic
    critic = None
    if "critic" in method.needs:
        critic = ValueHead(student.head.weight.shape[1], settings.hidden, seed=spec.seed).to(device)
    return Trainer(
        spec=spec,
        method=method,
        student=student,
        teacher=teacher,
        task=task,
        master=student,
        module=StudentStep(
            trunk,
            student.head,
            critic,
            detach_trunk=settings.detach_trunk,
            recompute=spec.batching.gradient_checkpointing,
        ),
        learner=student_learner(student, spec.optimizer),
        critic=None
        if critic is None
        else Learner(
            critic,
            torch.optim.AdamW(critic.parameters(), lr=settings.lr, weight_decay=0.0),
            settings.max_grad_norm,
        ),
        reference=_reference(spec, files, size, device) if "reference" in method.needs else None,
        order=PromptOrder(task.train, seed=spec.seed),
        budget=Budget(),
        micro_tokens=spec.batching.tokens,
        autocast=autocast(spec, device),
        writer=Writer(
            spec.rollout,
            spec.seed,
            student,
            teacher,
            task,
            choose_engine(spec.rollout, student, device=device, dtype=computed),
            served,
        ),
        replay=None if spec.rollout.replay is None else Replay(spec.rollout.replay, task.train, student.pad_id),
        attempt=attempt,
        ranks=ranks,
    )


def restore(t: Trainer, files: RunFiles, device: torch.device) -> tuple[checkpoint.Progress | None, list[str]]:
    """Put the newest sound checkpoint back, in place; returns what ``checkpoint.restore`` does."""
    progress, damaged = checkpoint.restore(files, t.master, t.learner, t.critic, _put_back(t, device))
    if progress is not None:
        if t.master is not t.student:
            copy_weights(t.master, t.student)
        t.order.cursor = progress.cursor
        t.state = PlanState(running=progress.running)
        t.budget = Budget.from_dict(progress.budget)
    return progress, damaged


def kept(t: Trainer) -> dict[str, dict[str, torch.Tensor]]:
    """What moves beside student and critic."""
    return {"teacher": t.teacher.weights(), "replay": {} if t.replay is None else t.replay.state()}


def _put_back(t: Trainer, device: torch.device) -> checkpoint.PutBack:
    takers: dict[str, Callable[[dict[str, torch.Tensor]], None]] = {"teacher": t.teacher.restore}
    if t.replay is not None:
        replay = t.replay
        takers["replay"] = lambda state: replay.restore(state, device)
    return takers


def _reference(spec: JobSpec, files: RunFiles, vocab_size: int, device: torch.device) -> LanguageModel:
    """The student as it is before the first update, also when the run goes on from a checkpoint."""
    reference = load_student(spec, device=device, trainable=False)
    take_start(spec, files, reference)
    reference.restrict_vocabulary(vocab_size)
    cast_parameters(reference.model, frozen_dtype(spec, device))
    return reference


def _build_demo_models(spec: JobSpec, emit: Emit) -> None:
    """On first use only. Loading would build them too, but without a word."""
    home = Settings().home
    wanted = {reference.model for _, reference in spec.models()}
    if not demo_models.missing(home, wanted):
        return
    said = -1

    def progress(label: str, done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // max(1, total)
        if tenth != said:
            said = tenth
            emit(messages.phase(f"{label}: {10 * tenth} %"))

    demo_models.ensure_all(home, wanted, progress)
