"""The wire to a teacher server: OpenAI-compatible completions with prompt log-probabilities (vLLM, SGLang).

Token ids go in, so no tokenizer stands between. For each token of a sequence the server answers the log-probability of
that token and of its own favourites (``prompt_logprobs``), and for the state after the last one those of the token that
it would write next (``logprobs``).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from opd_core.runs.endpoints import Endpoint
from opd_core.spec import UserError

_LARGEST_ANSWER = 256 * 2**20
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class TeacherUnreachable(RuntimeError):
    """The server did not answer for as long as its operator allows. The job can go on when it is back."""


@dataclass(frozen=True)
class Read:
    """What the server said about one sequence: maps id -> log-probability at each token, and after the last one."""

    tokens: list[Mapping[int, float]]  # at position i: of token i given those before it; empty for the first
    after: Mapping[int, float]


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

    def read(self, ids: Sequence[int], top_k: int) -> Read:
        """Score one sequence. Raises TeacherUnreachable, or UserError for what the server refuses."""
        answer = self._ask(ids, max_tokens=1, prompt_logprobs=top_k, logprobs=top_k)
        listed = answer.get("prompt_logprobs")
        if not isinstance(listed, list) or len(listed) != len(ids):
            raise self._unsuitable(
                "it gives no log-probabilities of a prompt's tokens (prompt_logprobs); vLLM and SGLang do"
            )
        return Read([_by_id(entry) for entry in listed], _first_written(answer))

    def write(self, ids: Sequence[int], max_tokens: int) -> str:
        """Go on greedily from one prompt; the text without special tokens."""
        return str(self._ask(ids, max_tokens=max_tokens).get("text", ""))

    def _ask(self, ids: Sequence[int], **wanted: Any) -> dict[str, Any]:
        body = {"model": self.endpoint.model, "prompt": list(ids), "temperature": 0.0, **wanted}
        if "logprobs" in wanted:
            body["return_tokens_as_token_ids"] = True
        response = self._post(body)
        choices = response.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self._unsuitable("its answer has no choices")
        return choices[0]

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        deadline, wait = time.monotonic() + self.endpoint.patience_s, 0.25
        while True:
            try:
                self.requests += 1
                response = self._http.post("/v1/completions", json=body)
                trouble = f"status {response.status_code}" if response.status_code in _BUSY else None
            except httpx.TransportError as error:
                response, trouble = None, type(error).__name__
            if response is not None and trouble is None:
                return self._content(response)
            if time.monotonic() + wait > deadline:
                raise TeacherUnreachable(
                    f"the teacher server {self.name!r} has not answered for {self.endpoint.patience_s:g} s ({trouble})"
                )
            self.retries += 1
            time.sleep(wait * (0.5 + random.random()))  # noqa: S311  (so that waiting jobs do not come back together)
            wait = min(2 * wait, 10.0)

    def _content(self, response: httpx.Response) -> dict[str, Any]:
        if response.status_code in (401, 403):
            raise self._unsuitable("it refuses our key (key_file)")
        if response.status_code != 200:
            raise self._unsuitable(f"it answers status {response.status_code}: {response.text[:200]!r}")
        if len(response.content) > _LARGEST_ANSWER:
            raise self._unsuitable("its answer is larger than 256 MiB")
        content = response.json()
        if not isinstance(content, dict):
            raise self._unsuitable("its answer is not a JSON object")
        return content

    def _unsuitable(self, reason: str) -> UserError:
        return UserError(
            f"teacher.endpoint: {self.name!r} cannot be used: {reason}",
            param="teacher.endpoint",
            code="unsuitable_endpoint",
        )


def _by_id(entry: Mapping[str, Any] | None) -> dict[int, float]:
    """One position of ``prompt_logprobs``: {'17': {'logprob': -0.3, ...}, ...}; null for the first token."""
    return {int(i): float(said["logprob"]) for i, said in (entry or {}).items()}


def _first_written(choice: Mapping[str, Any]) -> dict[int, float]:
    """The favourites for the first written token: 'token_id:17' -> log-probability."""
    told = (choice.get("logprobs") or {}).get("top_logprobs") or [{}]
    found = {}
    for token, logprob in (told[0] or {}).items():
        name = str(token).removeprefix("token_id:")
        if name.isdigit() and math.isfinite(float(logprob)):
            found[int(name)] = float(logprob)
    return found
