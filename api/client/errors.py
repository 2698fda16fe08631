"""What the service refuses, as one exception."""

from __future__ import annotations

import json

import httpx


class ApiError(Exception):
    """The service refused: ``status``, ``type`` (urn:opd:problem:...), ``title``, ``detail`` and ``param``."""

    def __init__(
        self, status: int, type: str, title: str, detail: str, param: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.param = param
        self.request_id = request_id


def raise_for(response: httpx.Response) -> None:
    """Raise the problem that the service answered with, if it did."""
    if response.is_success:
        return
    response.read()
    try:
        body = json.loads(response.content)
    except ValueError:
        body = {}
    problem = body if isinstance(body, dict) else {}
    raise ApiError(
        response.status_code,
        problem.get("type", "about:blank"),
        problem.get("title", response.reason_phrase),
        problem.get("detail", f"the service answered {response.status_code}"),
        problem.get("param"),
        problem.get("request_id"),
    )
