"""One connection to one service: address, token, repeated requests, answers as models."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from api import schemas as s
from api.client.errors import raise_for

DEFAULT_URL = "http://127.0.0.1:8321"
TRIES = 5
FIRST_PAUSE_S = 0.2
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Answer = TypeVar("Answer", bound=s.Schema)


class Transport:
    """Sends and reads; what is asked for is in its subclasses."""

    def __init__(self, url: str | None = None, token: str | None = None, *, timeout_s: float = 30.0) -> None:
        self.url = (url or os.environ.get("OPD_API_URL") or DEFAULT_URL).rstrip("/")
        token = token or _default_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy from the environment has no business between two processes of one machine.
        trust_env = urlsplit(self.url).hostname not in _LOOPBACK
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=trust_env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, model: type[Answer], path: str, **params: Any) -> Answer:
        given = {key: value for key, value in params.items() if value is not None}
        return self._as(model, self._request("GET", path, params=given))

    def _as(self, model: type[Answer], response: httpx.Response) -> Answer:
        return model.model_validate_json(response.content)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        for attempt in range(TRIES):
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError:
                if attempt == TRIES - 1:
                    raise
            else:
                if response.status_code not in (502, 503, 504) or attempt == TRIES - 1:
                    break
            time.sleep(FIRST_PAUSE_S * 2**attempt)
        raise_for(response)
        return response


def _default_token() -> str | None:
    if token := os.environ.get("OPD_API_TOKEN"):
        return token
    files = [Path(os.environ.get("OPD_HOME") or "~/.opd").expanduser() / "token"]
    if folder := os.environ.get("OPD_SECRETS_DIR"):
        files.insert(0, Path(folder) / "opd_api_token")
    return next((file.read_text(encoding="utf-8").strip() for file in files if file.is_file()), None)
