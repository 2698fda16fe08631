"""Ask about a run: what if a step had been trained under another method, and what would the student do here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from api import answers
from api import schemas as s
from api.problems import ProblemError, not_found, responses
from api.recorded import Records
from api.routers.parameters import JobDep, Step
from api.services import Services, ServicesDep
from opd_core import recipes
from opd_core.runs import records, wire
from opd_core.runs.ids import ID_PATTERN, is_id, new_id
from opd_core.runs.plain import storable
from opd_core.runs.questions import Kind, TooManyQuestions, answer_file, material_file
from opd_core.runs.queue import ASIDE, QUESTION_TASK
from opd_core.runs.rows import Job
from opd_core.spec import JobSpec

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["questions"])

_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The question is durable and waits for a worker",
        "headers": {"Location": {"description": "Address of the question.", "schema": {"type": "string"}}},
    }
}


@router.post(
    "/steps/{step}/replan",
    status_code=202,
    response_model=s.Question,
    summary="Ask what a recorded step would have been under another method",
    responses={**_ACCEPTED, **responses(400, 403, 404, 413, 422)},
)
def replan(request: s.ReplanRequest, job: JobDep, services: ServicesDep, step: Step) -> JSONResponse:
    """Nothing is trained: the recorded feedback is planned again. The method is checked like that of a new job."""
    method = _method(job, request)
    table = Records(job, services).step(step, records.SCHEMA.names)
    numbers = [n for n, length in zip(table["n"].to_pylist(), table["length"].to_pylist(), strict=True) if length]
    if not numbers:
        raise not_found(f"the student wrote nothing in the recorded sequences of step {step}", param="step")
    asked = numbers[: s.MAX_SEQUENCES] if request.sequences is None else sorted(set(request.sequences))
    if unknown := [n for n in asked if n not in numbers]:
        known = ", ".join(map(str, numbers))
        detail = f"sequences: step {step} has no recorded sequence {unknown[0]} with tokens; it has {known}"
        raise ProblemError(422, "invalid_request", detail, param="sequences")
    told = {"step": step, "recipe": request.recipe, "method": method, "sequences": asked}
    return _ask(services, job, "replan", told, wire.encode(table.combine_chunks()))


@router.post(
    "/probe",
    status_code=202,
    response_model=s.Question,
    summary="Ask what the student does with a prompt of your own",
    responses={**_ACCEPTED, **responses(400, 403, 404, 413, 422)},
)
def probe(request: s.ProbeRequest, job: JobDep, services: ServicesDep) -> JSONResponse:
    """The student of a checkpoint completes it, the teacher scores it, the run's method plans; nothing is trained."""
    if storable(request.prompt) != request.prompt:
        detail = "prompt: it holds a NUL or half of a surrogate pair, which is no text"
        raise ProblemError(422, "invalid_request", detail, param="prompt")
    rollout = job.resolved_spec["rollout"]
    told = request.model_dump(mode="json") | {"checkpoint": _checkpoint(job, services, request.checkpoint)}
    if told["max_new_tokens"] is None:
        told["max_new_tokens"] = min(rollout["max_new_tokens"], s.MAX_NEW_TOKENS)
    if told["temperature"] is None:
        told["temperature"] = rollout["temperature"]
    return _ask(services, job, "probe", told)


@router.get(
    "/questions/{question_id}",
    response_model=s.Question,
    summary="Read a question and its answer",
    responses=responses(404),
)
def read_question(
    job: JobDep,
    services: ServicesDep,
    question_id: Annotated[str, Path(json_schema_extra={"pattern": ID_PATTERN})],
) -> s.Question:
    """``waiting``, ``working``, ``answered`` (with ``result``) or ``failed`` (with ``error``). Kept for a week."""
    row = services.questions.get(question_id) if is_id(question_id) else None
    if row is None or row.job_id != job.id:
        raise not_found(f"the job has no question {question_id!r}", param="question_id")
    if row.status != "answered":
        return answers.question(row)
    try:
        answer = services.files(job.id).read_json(answer_file(row.id))
    except FileNotFoundError as error:
        raise not_found(f"the answer to {row.id} is no longer stored") from error
    vocabulary = services.vocabulary(job.id)
    if row.kind == "replan":
        return answers.question(row, answers.replan(row.request, answer, vocabulary))
    return answers.question(row, answers.probe(answer, vocabulary))


def _method(job: Job, request: s.ReplanRequest) -> dict[str, Any]:
    """The complete method that is asked about. Raises UserError as the submission of a job does."""
    spec = JobSpec.model_validate(job.resolved_spec)
    if request.recipe is None:
        method = recipes.revise(spec.method, request.method).model_dump(mode="json")
        spec.model_copy(update={"method": method}).check_method()
        return method
    asked = spec.model_copy(update={"recipe": request.recipe, "method": request.method})
    return recipes.resolve(asked).method


def _checkpoint(job: Job, services: Services, wanted: str | None) -> str | None:
    """The name of a training checkpoint, from its name or id."""
    if wanted is None:
        return None
    known = [row for row in services.store.list_checkpoints(job.id) if row.kind == "training"]
    for row in known:
        if wanted in (row.id, row.name):
            return row.name
    names = ", ".join(row.name for row in known) or "none"
    detail = f"checkpoint: the job has no training checkpoint {wanted!r}; it has {names}"
    raise ProblemError(422, "invalid_request", detail, param="checkpoint")


def _ask(
    services: Services, job: Job, kind: Kind, request: dict[str, Any], material: bytes | None = None
) -> JSONResponse:
    question_id = new_id("question")
    if material is not None:
        # The step as it is now: it may be fresh in the live stream only, and a later attempt may repeat it.
        services.files(job.id).write_bytes(material_file(question_id), material)
    try:
        row = services.questions.ask(job.id, kind, request, id=question_id)
    except TooManyQuestions as error:
        services.files(job.id).remove(material_file(question_id))
        raise ProblemError(429, "too_many_questions", str(error)) from error
    if services.bell.ring(row.id, ASIDE, QUESTION_TASK):
        services.questions.mark_rung(row.id)
    body = answers.question(row).model_dump(mode="json")
    return JSONResponse(body, 202, {"Location": f"/v1/jobs/{job.id}/questions/{row.id}"})
