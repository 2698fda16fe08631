"""The wire to a server that the operator has registered: JSON over HTTP, patient in trouble.

One teaches (teachers/remote.py), another writes what the student would write (rollout/served.py); what is said on the
wire is theirs.
"""

from __future__ import annotations

import random
import time
from typing import Any, Literal

import httpx

from opd_core.runs.endpoints import Endpoint
from opd_core.spec import UserError

_LARGEST_ANSWER = 256 * 2**20
Role = Literal["teacher", "rollout"]  # the section of the spec that names the server
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class ServerUnreachable(RuntimeError):
    """The server did not answer for as long as its operator allows. The job can go on when it is back."""

    def __init__(self, role: Role, sentence: str) -> None:
        super().__init__(sentence)
        self.role = role


class Unsuitable(UserError):
    """The server answers, but not what it has to. ``reason`` is the sentence without the server's name, ``status`` that
    of an answer which was refused for it.
    """

    def __init__(self, role: Role, name: str, reason: str, status: int | None = None) -> None:
        super().__init__(
            f"{role}.endpoint: {name!r} cannot be used: {reason}",
            param=f"{role}.endpoint",
            code="unsuitable_endpoint",
        )
        self.reason, self.status = reason, status


class Server:
    """Thread-safe. No redirects are followed: the operator named this address and no other."""

    def __init__(
        self, name: str, endpoint: Endpoint, transport: httpx.BaseTransport | None = None, *, role: Role = "teacher"
    ) -> None:
        self.name, self.endpoint, self.role = name, endpoint, role
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
        """The first choice of an OpenAI-compatible completion. Raises ServerUnreachable or Unsuitable."""
        answer = self.post("/v1/completions", {"model": self.endpoint.model, "temperature": 0.0, **wanted})
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self.unsuitable("its answer has no choices")
        return choices[0]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON object that it answers. Raises ServerUnreachable, or Unsuitable for what the server refuses."""
        return self._content(path, self._ask("POST", path, body))

    def get(self, path: str) -> dict[str, Any]:
        """The same, without a question."""
        return self._content(path, self._ask("GET", path, None))

    def tell(self, path: str, body: dict[str, Any]) -> None:
        """What is answered by being done. Status 500 is a failure to do it, and not tried again."""
        self._check(path, self._ask("POST", path, body, _BUSY - {500}))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, busy: frozenset[int] = _BUSY) -> httpx.Response:
        deadline, wait = time.monotonic() + self.endpoint.patience_s, 0.25
        while True:
            try:
                self.requests += 1
                response = self._http.request(method, path, json=body)
                trouble = f"status {response.status_code}" if response.status_code in busy else None
            except httpx.TransportError as error:
                response, trouble = None, type(error).__name__
            if response is not None and trouble is None:
                return response
            if time.monotonic() + wait > deadline:
                raise ServerUnreachable(
                    self.role,
                    f"the {self.role} server {self.name!r} has not answered for {self.endpoint.patience_s:g} s "
                    f"({trouble})",
                )
            self.retries += 1
            time.sleep(wait * (0.5 + random.random()))  # noqa: S311  (so that waiting jobs do not come back together)
            wait = min(2 * wait, 10.0)

    def unsuitable(self, reason: str, status: int | None = None) -> Unsuitable:
        """The error that says so of this server."""
        return Unsuitable(self.role, self.name, reason, status)

    def _check(self, path: str, response: httpx.Response) -> None:
        if response.status_code == 401:
            raise self.unsuitable("it refuses our key (key_file)")
        if response.status_code != 200:
            raise self.unsuitable(
                f"{path} answers status {response.status_code}: {response.text[:200]!r}", response.status_code
            )

    def _content(self, path: str, response: httpx.Response) -> dict[str, Any]:
        self._check(path, response)
        if len(response.content) > _LARGEST_ANSWER:
            raise self.unsuitable("its answer is larger than 256 MiB")
        try:
            content = response.json()
        except ValueError as error:
            raise self.unsuitable(f"{path} does not answer in JSON") from error
        if not isinstance(content, dict):
            raise self.unsuitable("its answer is not a JSON object")
        return content
