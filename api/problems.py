"""Errors as RFC 9457 ``application/problem+json``: every one of them, whoever raised it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.schemas import Problem
from opd_core.runs.states import InvalidTransition
from opd_core.runs.store import IdempotencyMismatch, JobNotFound, NothingToSave, NotWaiting, QueueFull
from opd_core.spec import UserError

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    "invalid_request": "The request is not valid",
    "invalid_spec": "The job spec is not valid",
    "unauthorized": "A token is needed",
    "forbidden": "The token may not do this",
    "not_found": "There is no such thing",
    "method_not_allowed": "The method is not allowed here",
    "too_large": "The request is too large",
    "invalid_transition": "The job's status does not allow this",
    "idempotency_mismatch": "The Idempotency-Key was used before",
    "too_many_questions": "Too many questions are waiting",
    "too_many_requests": "The token asks too fast",
    "too_many_streams": "Too many live streams are open",
    "queue_full": "Too many jobs are waiting",
    "internal": "The service failed",
    "unavailable": "A part of the service is away",
}
_CODES = {400: "invalid_request", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
TOO_LARGE = "the body may have at most 1 MiB"
_DETAILS = {
    404: "there is nothing at this address",
    405: "this address does not take that method; the Allow header lists those it takes",
    413: TOO_LARGE,
}
_DESCRIPTIONS = {
    304: "Not changed since the given ETag",
    400: "The body could not be read",
    401: "No token, or a wrong one",
    403: "The token's scope is too small; the answer names the one that is missing",
    404: "No such job, step, checkpoint, file or recipe",
    409: "The job's status does not allow this",
    413: "The body is larger than 1 MiB",
    422: "A field, parameter or header is not valid; `param` names it",
    429: "Too many requests, open streams, waiting jobs or waiting questions; the answer names the limit",
    500: "The service failed; `request_id` finds it in the log",
    503: "A part of the service is away",
}


class ProblemError(Exception):
    """Raise to answer with a problem. ``code`` becomes the type ``urn:opd:problem:CODE``."""

    def __init__(
        self, status: int, code: str, detail: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.param = param
        self.headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}


def not_found(detail: str, *, param: str | None = None) -> ProblemError:
    """A 404 in one sentence."""
    return ProblemError(404, "not_found", detail, param=param)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    param: str | None = None,
    allowed: list[str] | None = None,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response itself."""
    body = Problem(
        type=f"urn:opd:problem:{code}",
        title=_TITLES.get(code) or _TITLES["invalid_spec"],
        status=status,
        detail=detail if len(detail) <= 2000 else f"{detail[:2000]}...",
        param=param,
        allowed=allowed,
        request_id=request_id,
    )
    content = body.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, status, dict(headers or {}), media_type=MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented errors of an endpoint (401, 429 and 500 come with all)."""
    return {
        status: {"model": Problem, "description": _DESCRIPTIONS[status]}
        for status in sorted({401, 429, 500, *statuses})
    }


def sentence(error: Mapping[str, Any], more: int) -> tuple[str, str]:
    """(field, one sentence) of a validation error in FastAPI's form, in the words of ``opd_core.spec.describe``."""
    source, *path = [str(part) for part in error["loc"]]
    where = ".".join(path) or "body"
    message = str(error["msg"]).removeprefix("Value error, ")
    shown, value = "", error.get("input")
    if error["type"] == "extra_forbidden":
        message, value = "there is no such field", None  # which may have been a secret
    if error["type"] == "json_invalid":
        where, message = "body", f"not JSON: {error.get('ctx', {}).get('error', 'it cannot be parsed')}"
    if isinstance(value, str | int | float | bool):
        text = repr(value)
        shown = f" (got {text if len(text) <= 80 else text[:80] + '...'})"
    place = "" if source == "body" else f"{source} parameter " if source in ("query", "path") else f"{source} "
    tail = f"; and {more} more problem{'s' if more > 1 else ''}" if more else ""
    return where, f"{place}{where}: {message}{shown}{tail}"


def install(app: FastAPI) -> None:
    """Answer every exception that a request can meet, except the unexpected (``observe`` does that)."""

    def answer(request: Request, *args: Any, **options: Any) -> JSONResponse:
        return problem(*args, request_id=getattr(request.state, "request_id", None), **options)

    @app.exception_handler(ProblemError)
    def _problem(request: Request, error: ProblemError) -> JSONResponse:
        return answer(request, error.status, error.code, error.detail, param=error.param, headers=error.headers)

    @app.exception_handler(UserError)
    def _user(request: Request, error: UserError) -> JSONResponse:
        return answer(request, 422, error.code, error.message, param=error.param)

    @app.exception_handler(RequestValidationError)
    def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        found: Sequence[Mapping[str, Any]] = error.errors()
        where, detail = sentence(found[0], len(found) - 1)
        code = "invalid_spec" if found[0]["loc"][0] == "body" else "invalid_request"
        return answer(request, 422, code, detail, param=where)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        status = error.status_code
        code = _CODES.get(status, "invalid_request" if status < 500 else "internal")
        return answer(request, status, code, _DETAILS.get(status, error.detail), headers=error.headers)

    @app.exception_handler(JobNotFound)
    def _job(request: Request, error: JobNotFound) -> JSONResponse:
        return answer(request, 404, "not_found", f"there is no job {error.args[0]!r}")

    @app.exception_handler(InvalidTransition)
    def _transition(request: Request, error: InvalidTransition) -> JSONResponse:
        return answer(request, 409, "invalid_transition", str(error), allowed=error.allowed)

    @app.exception_handler(NothingToSave)
    @app.exception_handler(NotWaiting)
    def _not_now(request: Request, error: NothingToSave | NotWaiting) -> JSONResponse:
        return answer(request, 409, "invalid_transition", str(error))

    @app.exception_handler(IdempotencyMismatch)
    def _mismatch(request: Request, error: IdempotencyMismatch) -> JSONResponse:
        return answer(request, 422, "idempotency_mismatch", str(error), param="Idempotency-Key")

    @app.exception_handler(QueueFull)
    def _full(request: Request, error: QueueFull) -> JSONResponse:
        return answer(request, 429, "queue_full", str(error), headers={"Retry-After": "60"})
