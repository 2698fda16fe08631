"""Bearer tokens. One token so far; it is kept hashed and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import problem

OPEN_PATHS = frozenset({"/livez", "/openapi.json", "/docs"})
bearer = HTTPBearer(auto_error=False, description="The token of OPD_API_TOKEN or of the file {OPD_HOME}/token.")
"""For the OpenAPI document only: ``RequireToken`` decides, before a body is read."""


class RequireToken:
    """Refuses requests without the token.

    With no token configured, requests are taken from this machine alone, addressed to it by a loopback name and not
    sent by a web page: neither a page's form nor its own host name pointing at 127.0.0.1 reaches the service.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._digest = None if token is None else _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            request = Request(scope)
            refusal = self._refusal(request)
            if refusal:
                request_id = getattr(request.state, "request_id", None)
                headers = {"WWW-Authenticate": 'Bearer realm="opd"'}
                response = problem(401, "unauthorized", refusal, request_id=request_id, headers=headers)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, request: Request) -> str | None:
        if self._digest is None:
            client = request.client.host if request.client else ""
            local = is_loopback(client) and is_loopback(request.url.hostname or "")
            if local and "origin" not in request.headers:
                return None
            return "this service has no token and answers its own machine only; set OPD_API_TOKEN"
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return "send the header 'Authorization: Bearer TOKEN'"
        if not hmac.compare_digest(_digest(token.strip()), self._digest):
            return "the token is wrong"
        return None


def principal(request: Request) -> str:
    """Who asks: the scope of an idempotency key."""
    return _digest(request.headers.get("authorization", "")).hex()[:32]


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
