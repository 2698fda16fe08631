"""The wire to a teacher server: JSON over HTTP, patient in trouble. What is said on it is a dialect's (dialect.py)."""

from __future__ import annotations

import random
import time
from typing import Any

import httpx

from opd_core.runs.endpoints import Endpoint
from opd_core.spec import UserError

_LARGEST_ANSWER = 256 * 2**20
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class TeacherUnreachable(RuntimeError):
    """The server did not answer for as long as its operator allows. The job can go on when it is back."""


class Unsuitable(UserError):
    """The server answers, but not what a teacher has to. ``reason`` is the sentence without the server's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"teacher.endpoint: {name!r} cannot be used: {reason}",
            param="teacher.endpoint",
            code="unsuitable_endpoint",
        )
        self.reason = reason


class Server:
    """Thread-safe. No redirects are followed: the operator named this address and no other."""

    def __init__(self, name: str, endpoint: Endpoint, transport: httpx.BaseTransport | None = None) -> None:
        self.name, self.endpoint = name, endpoint
        key = endpoint.key()
        self._http = httpx.Client(
            base_url=str(endpoint.url),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=endpoint.timeout_s,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=endpoint.concurrency),
            transport=transport,
        )
        self.requests = 0
        self.retries = 0

    def complete(self, **wanted: Any) -> dict[str, Any]:
        """The first choice of an OpenAI-compatible completion. Raises TeacherUnreachable or Unsuitable."""
        answer = self.post("/v1/completions", {"model": self.endpoint.model, "temperature": 0.0, **wanted})
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self.unsuitable("its answer has no choices")
        return choices[0]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON object that it answers. Raises TeacherUnreachable, or Unsuitable for what the server refuses."""
        deadline, wait = time.monotonic() + self.endpoint.patience_s, 0.25
        while True:
            try:
                self.requests += 1
                response = self._http.post(path, json=body)
                trouble = f"status {response.status_code}" if response.status_code in _BUSY else None
            except httpx.TransportError as error:
                response, trouble = None, type(error).__name__
            if response is not None and trouble is None:
                return self._content(path, response)
            if time.monotonic() + wait > deadline:
                raise TeacherUnreachable(
                    f"the teacher server {self.name!r} has not answered for {self.endpoint.patience_s:g} s ({trouble})"
                )
            self.retries += 1
            time.sleep(wait * (0.5 + random.random()))  # noqa: S311  (so that waiting jobs do not come back together)
            wait = min(2 * wait, 10.0)

    def unsuitable(self, reason: str) -> Unsuitable:
        """The error that says so of this server."""
        return Unsuitable(self.name, reason)

    def _content(self, path: str, response: httpx.Response) -> dict[str, Any]:
        if response.status_code == 401:
            raise self.unsuitable("it refuses our key (key_file)")
        if response.status_code != 200:
            raise self.unsuitable(f"{path} answers status {response.status_code}: {response.text[:200]!r}")
        if len(response.content) > _LARGEST_ANSWER:
            raise self.unsuitable("its answer is larger than 256 MiB")
        try:
            content = response.json()
        except ValueError as error:
            raise self.unsuitable(f"{path} does not answer in JSON") from error
        if not isinstance(content, dict):
            raise self.unsuitable("its answer is not a JSON object")
        return content
