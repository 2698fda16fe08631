"""``from``: a job that starts with another job's student."""

from __future__ import annotations

from api.services import Services
from opd_core.runs.artifacts import START, CorruptArtifact
from opd_core.runs.ids import is_id
from opd_core.runs.rows import Checkpoint, Job
from opd_core.spec import JobSpec, UserError


def resolve_start(spec: JobSpec, services: Services) -> JobSpec:
    """The spec with the checkpoint that ``from`` means. Raises UserError where there is none that fits."""
    if spec.from_ is None:
        return spec
    source = services.store.get_job(spec.from_.job) if is_id(spec.from_.job) else None
    if source is None:
        raise UserError(f"from.job: there is no job {spec.from_.job!r}", param="from.job", code="unknown_job")
    student = spec.student.model_dump(mode="json")
    if student != source.resolved_spec["student"]:
        raise UserError(
            f"student.model: {spec.student.model!r} is not the student of the job in 'from', which is "
            f"{source.resolved_spec['student']['model']!r}: its weights fit no other model",
            param="student.model",
        )
    chosen = _checkpoint(services, source, spec.from_.checkpoint)
    return spec.model_copy(update={"from_": spec.from_.model_copy(update={"checkpoint": chosen.id})})


def copy_start(spec: JobSpec, job_id: str, services: Services) -> None:
    """Put the chosen student beside the new run, which then no longer needs the job it came from."""
    if spec.from_ is None:
        return
    source = services.store.get_job(spec.from_.job)
    if source is None:
        raise _gone(spec.from_.checkpoint)
    checkpoint = _checkpoint(services, source, spec.from_.checkpoint)
    export = checkpoint.kind == "export"
    name = checkpoint.name if export else f"checkpoints/{checkpoint.name}"
    try:
        services.files(job_id).adopt(services.files(source.id), name, START, folder="" if export else "student")
    except (FileNotFoundError, CorruptArtifact) as error:
        services.files(job_id).remove_all()
        raise _gone(checkpoint.id) from error


def _checkpoint(services: Services, source: Job, wanted: str | None) -> Checkpoint:
    saved = services.store.list_checkpoints(source.id)
    if not saved:
        message = f"from.job: {source.name!r} has no checkpoint yet"
        raise UserError(message, param="from.job", code="no_checkpoint")
    if wanted is None:
        return saved[-1]
    for checkpoint in saved:
        if checkpoint.id == wanted:
            return checkpoint
    choices = ", ".join(f"{one.id} (step {one.step})" for one in saved[-5:])
    raise UserError(
        f"from.checkpoint: the job has no checkpoint {wanted!r}; it has {choices}",
        param="from.checkpoint",
        code="unknown_checkpoint",
    )


def _gone(checkpoint_id: str | None) -> UserError:
    message = f"from.checkpoint: the files of {checkpoint_id} are no longer stored; choose another checkpoint"
    return UserError(message, param="from.checkpoint", code="unknown_checkpoint")
