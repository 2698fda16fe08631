"""The answer to "what would it do here": the student completes a prompt, the teacher scores it, the method plans.

Nothing is trained. The student is that of a checkpoint, or of the start of the run; the record is like those of a step,
without the change that an update would have made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from opd_core.diagnostics.exactness import Known, exactness
from opd_core.diagnostics.records import Recorder, Text
from opd_core.models import LanguageModel, ValueHead, load_student
from opd_core.objective.candidates import wanted_k
from opd_core.objective.plan import PlanState
from opd_core.rollout import Rollouts, uniform_noise, write
from opd_core.runs.artifacts import CorruptArtifact, RunFiles
from opd_core.spec import JobSpec, UserError
from opd_core.spec.job import LARGEST_TOP_K
from opd_core.tasks import Problem, Task
from opd_core.tasks.contexts import ways
from opd_core.tasks.dataset import prompts_of
from opd_core.tasks.load import environment_of
from opd_core.teachers import Asked, Teacher, load_voices, make_teacher, score_with_ends
from opd_core.training import checkpoint, messages
from opd_core.training.ahead import read_ahead
from opd_core.training.budget import Budget
from opd_core.training.context import feedback_context, special_ids
from opd_core.training.evaluation import completions
from opd_core.training.messages import Emit
from opd_core.training.schedule import done
from opd_core.training.start import take_start
from opd_core.training.student_step import StudentStep
from opd_core.training.update import Update

_MICRO_TOKENS = 1 << 20  # one sequence is one piece


@dataclass(frozen=True)
class _Loaded:
    """The models as the checkpoint ``name`` left them; None = as they were at the start of the run."""

    student: LanguageModel
    teacher: Teacher
    task: Task
    critic: ValueHead | None
    name: str | None
    step: int
    done: float
    running: dict[str, float]


def try_prompt(files: RunFiles, spec: JobSpec, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """``request``: prompt, max_new_tokens, temperature, seed and checkpoint (None = the newest). Raises UserError."""
    emit(messages.phase("loading models"))
    loaded = _load(files, spec, request["checkpoint"])
    text, ids = _read_prompt(spec, loaded.student, request["prompt"], request["max_new_tokens"])
    emit(messages.phase("the student writes"))
    rollouts = _write(loaded, ids, request)
    emit(messages.phase("the teacher scores"))
    row = _record(spec, files, loaded, rollouts, request["prompt"], text)
    method = spec.method_spec()
    known = Known(
        sequences=1,
        of_sequences=spec.rollout.prompts_per_step * spec.rollout.samples_per_prompt,
        whole_vocabulary=True,
        favourites=loaded.student.vocab_size,
        temperatures=(method.objective.temperature, method.objective.effective_teacher_temperature),
        behaviour=True,
        critic=loaded.name is not None,
        reward_mean="reward_mean" in loaded.running,
        complete=True,
    )
    return {
        "checkpoint": loaded.name,
        "step": loaded.step,
        "row": {**row, "batch": None},
        "approximate": {field: list(reasons) for field, reasons in exactness(method, method, known).items()},
        "notes": ["a prompt of your own has no verified answer: it counts as wrong"]
        if "reward" in method.needs
        else [],
    }


def _load(files: RunFiles, spec: JobSpec, wanted: str | None) -> _Loaded:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def begin(lm: LanguageModel) -> None:
        take_start(spec, files, lm)

    student = load_student(spec, device=device, trainable=False)
    begin(student)
    voices, _ = load_voices(spec, student, device=device, start=begin)
    # A prompt of the user's own has no tag: everybody speaks for it, by weight.
    everybody = [replace(voice, tags=None) for voice in voices]
    task = _prompts_alone(spec, student)
    teacher = make_teacher(spec, everybody, task, student)
    method = spec.method_spec()
    critic = None
    if "critic" in method.needs:
        critic = ValueHead(student.head.weight.shape[1], method.credit.critic.hidden, seed=spec.seed).to(device)
    name, progress = _read_checkpoint(files, student, critic, teacher, wanted)
    if progress is None:
        return _Loaded(student, teacher, task, critic, name, 0, 0.0, {})
    behind = done(spec.schedule, Budget.from_dict(progress.budget), progress.step + 1)
    return _Loaded(student, teacher, task, critic, name, progress.step, behind, progress.running)


def _prompts_alone(spec: JobSpec, student: LanguageModel) -> Task:
    """What a teacher has to know of the task to read a prompt; its problems are not loaded for that."""
    prompts = prompts_of(spec.task, student.tokenizer)
    environment = environment_of(spec.task, student.tokenizer, student.eos_ids)
    return Task(name="prompt", train=(), eval=(), verify=None, **ways(prompts), environment=environment)


def _read_checkpoint(
    files: RunFiles, student: LanguageModel, critic: nn.Module | None, teacher: Teacher, wanted: str | None
) -> tuple[str | None, checkpoint.Progress | None]:
    for name in checkpoint.names(files):
        if wanted not in (None, name):
            continue
        try:
            return name, checkpoint.read_weights(files, name, student, critic, {"teacher": teacher.restore})
        except (CorruptArtifact, FileNotFoundError):
            continue  # damaged, or removed by the trainer meanwhile: an older or a newer one will do
    if wanted is not None:
        raise UserError(
            f"checkpoint: {wanted!r} is not stored (any more); leave it out for the newest one",
            param="checkpoint",
            code="unknown_checkpoint",
        )
    return None, None


def _read_prompt(spec: JobSpec, student: LanguageModel, prompt: str, new_tokens: int) -> tuple[str, list[int]]:
    """The prompt as the student reads it, as text and as ids."""
    prompts = prompts_of(spec.task, student.tokenizer)
    text = prompts.render(prompt)
    ids = prompts.encode(text)
    unknown = student.tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        raise UserError(
            f"prompt: the student's tokenizer does not know {_first_unknown(student, text)!r}; write the prompt in the "
            "words of the training prompts, with the same blanks between words and marks",
            param="prompt",
            code="unknown_words",
        )
    if beyond := next((token for token in ids if token >= student.vocab_size), None):
        token = student.tokenizer.convert_ids_to_tokens(beyond)
        raise UserError(
            f"prompt: it uses the token {token!r}, which the teacher does not have",
            param="prompt",
            code="different_vocabularies",
        )
    positions = getattr(student.model.config, "max_position_embeddings", None)
    most = (
        spec.task.max_prompt_tokens if positions is None else min(spec.task.max_prompt_tokens, positions - new_tokens)
    )
    if not 1 <= len(ids) <= most:
        raise UserError(
            f"prompt: it has {len(ids)} tokens, and 1 to {max(most, 0)} are allowed here (task.max_prompt_tokens, and "
            "the positions that the model has for prompt and completion)",
            param="prompt",
            code="prompt_length",
        )
    return text, ids


def _first_unknown(student: LanguageModel, text: str) -> str:
    for word in re.findall(r"\S+", text):
        if student.tokenizer.unk_token_id in student.tokenizer(word, add_special_tokens=False)["input_ids"]:
            return word[:80]
    return text[:80]


def _write(loaded: _Loaded, ids: list[int], request: dict[str, Any]) -> Rollouts:
    length, temperature = request["max_new_tokens"], request["temperature"]
    greedy = temperature == 0.0
    return write(
        loaded.student,
        [ids],
        max_new_tokens=length,
        noise=None if greedy else uniform_noise(request["seed"], 0, [(0, 0)], loaded.task.room(length)),
        temperature=1.0 if greedy else temperature,
        environment=loaded.task.environment,
    )


def _record(
    spec: JobSpec, files: RunFiles, loaded: _Loaded, rollouts: Rollouts, prompt: str, text: str
) -> dict[str, Any]:
    method, student = spec.method_spec(), loaded.student
    device = rollouts.tokens.device
    reference = None
    if "reference" in method.needs:
        start = load_student(spec, device=device, trainable=False)
        take_start(spec, files, start)
        start.restrict_vocabulary(student.vocab_size)
        reference = score_with_ends(start, rollouts, micro_tokens=_MICRO_TOKENS)
    state = PlanState(
        progress=loaded.done,
        running=loaded.running,
        generator=torch.Generator().manual_seed(spec.seed),
        critic_ready=method.credit.estimator != "gae" or loaded.step >= method.credit.critic.warmup_steps,
    )
    module = StudentStep(student.trunk, student.head, loaded.critic)
    ahead = read_ahead(
        loaded.teacher,
        method,
        module,
        student.head,
        rollouts,
        micro_tokens=_MICRO_TOKENS,
        state=state,
        special_ids=special_ids(student),
    )
    # A prompt of the user's own has no answer: a teacher with a context reads the bare prompt.
    asked = Asked(rollouts, [Problem(-1, text, None, raw=prompt)], [None], proposed=ahead.proposed)
    update = Update(
        method=method,
        module=module,
        head=student.head,
        rollouts=rollouts,
        scores=loaded.teacher.score(asked, micro_tokens=_MICRO_TOKENS).scores,
        micro_tokens=_MICRO_TOKENS,
        state=state,
        context=feedback_context(
            method,
            student,
            rollouts,
            group=torch.zeros(1, dtype=torch.long, device=device),
            reward=torch.zeros(1, device=device) if "reward" in method.needs else None,
            from_data=torch.zeros(1, dtype=torch.bool, device=device) if "origin" in method.needs else None,
        ),
        reference=reference,
        reading=ahead.reading,
    )
    update.look()
    recorder = Recorder(
        rollouts=rollouts,
        feedback=update.feedback,
        plan=update.plan,
        state=state,
        student=update.student,
        sequences=[0],
        top_k=max(spec.telemetry.top_k, min(wanted_k(method), LARGEST_TOP_K)),
        probe_states=0,
    )
    (completion,) = completions(student, rollouts)
    (row,) = recorder.rows(step=loaded.step, attempt=0, texts=[Text(0, text, completion, None, None)])
    return row
