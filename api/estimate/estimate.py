"""Tokens, operations and memory of a resolved spec, as far as they can be told without running it."""

from __future__ import annotations

from math import ceil

from api import schemas as s
from api.estimate.checkpoints import Checkpoint, Unknown, read_checkpoint
from api.estimate.memory import in_bfloat16, memory
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec

_GIB = 2.0**30


def estimate(spec: JobSpec, settings: Settings) -> s.Estimate:
    """What a job may take. Raises UserError for a model directory with a link that leads out of the allowed roots."""
    sizes, found = _sizes(spec, settings)
    volume, all_known, parts = _volume(spec), len(found) == len(sizes), None
    notes = ["Every row at rollout.max_new_tokens; prompts come on top, and so do evaluations."]
    if all_known:
        try:
            parts = [s.MemoryPart(what=what, gib=size / _GIB) for what, size in memory(spec, found)]
        except Unknown as unknown:
            notes.append(f"Memory is not known: {unknown}.")
    if parts is not None:
        frozen = "bfloat16" if in_bfloat16(spec) else "float32"
        notes.append(
            f"Memory is that of one process, with frozen models in {frozen}. Activations are those of a usual decoder: "
            "a size, not a bound. Libraries (a GiB or two) and the loss's pieces of the vocabulary come on top."
        )
    return s.Estimate(
        **volume,
        flops=_flops(spec, found, volume) if all_known else None,
        models=sizes,
        memory=parts,
        memory_gib=None if parts is None else sum(part.gib for part in parts),
        notes=notes,
    )


def _sizes(spec: JobSpec, settings: Settings) -> tuple[list[s.ModelSize], dict[str, Checkpoint]]:
    sizes, found = [], {}
    for param, model in spec.models():
        try:
            found[param] = read_checkpoint(model, settings, param=param)
            sizes.append(s.ModelSize(param=param, model=model.model, parameters=found[param].parameters))
        except Unknown as unknown:
            sizes.append(s.ModelSize(param=param, model=model.model, reason=str(unknown)))
    return sizes, found


def _volume(spec: JobSpec) -> dict[str, int]:
    """Tokens at most, as whole steps of full rows; a budget ends the run after the step that reaches it."""
    rollout, schedule = spec.rollout, spec.schedule
    rows = rollout.prompts_per_step * rollout.samples_per_prompt
    of_student = ceil(rows * rollout.written_by.student) * rollout.max_new_tokens
    scored = rows * rollout.max_new_tokens * len(spec.voices())
    steps = schedule.steps
    student, teacher = of_student * steps, scored * steps
    if schedule.until is not None:
        name, limit = schedule.until.limit
        if name == "student_tokens":
            student = min(student, int(limit) + of_student)
        if name == "teacher_tokens":
            teacher = min(teacher, int(limit) + scored)
    return {
        "rollouts_per_step": rows,
        "rollouts": rows * steps,
        "student_tokens": student,
        "scored_tokens": teacher,
    }


def _flops(spec: JobSpec, found: dict[str, Checkpoint], volume: dict[str, int]) -> float:
    """By 2 per parameter and token forward, 6 for forward and backward; a budget of operations is what it is."""
    student = found["student.model"].parameters
    scoring = sum(
        2.0 * (found[f"{path}.model"].parameters if voice.model is not None else student)
        for path, voice in spec.voices()
        if voice.model is not None or voice.self_ is not None
    )
    rows = volume["rollouts"] * spec.rollout.max_new_tokens
    forwards = 2.0 * student * volume["student_tokens"] + scoring * volume["scored_tokens"] / len(spec.voices())
    most = forwards + 6.0 * student * rows
    until = spec.schedule.until
    return min(most, until.flops) if until is not None and until.flops is not None else most
