"""Who asks, and may they? Bearer tokens, decided before a body is read.

The service's own token (OPD_API_TOKEN or the token file) may do everything; others are made with ``opd token create``
and have a scope. What an address needs is its method's: looking needs ``read``, everything else ``submit``; deleting
what somebody else made needs ``admin`` (see ``require_owner``).
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import cast

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from api.problems import ProblemError, problem
from api.services import Services
from opd_core.runs.rows import Job
from opd_core.runs.tokens import Scope, allows, token_hash

OPEN_PATHS = frozenset(
    {"/livez", "/openapi.json", "/docs", "/docs/page.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"}
)
bearer = HTTPBearer(
    auto_error=False,
    description="The token of OPD_API_TOKEN or of the file {OPD_HOME}/token, or one made with `opd token create`.",
)
"""For the OpenAPI document only: ``RequireToken`` decides."""
_LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Identity:
    """Who asks. ``name`` is the token's, 'admin' for the service's own, 'local' for this machine without a token."""

    name: str
    scope: Scope


class RequireToken:
    """Answers 401 without a good token and 403 where its scope is too small; else notes the ``Identity``.

    With no token anywhere, requests are taken from this machine alone, addressed to it by a loopback name and not
    sent by a web page: neither a page's form nor its own host name pointing at 127.0.0.1 reaches the service.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services
        token = services.settings.token()
        self._own = None if token is None else token_hash(token)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            request = Request(scope)
            request_id = getattr(request.state, "request_id", None)
            found = await self._identify(request)
            if isinstance(found, str):
                headers = {"WWW-Authenticate": 'Bearer realm="opd"'}
                await problem(401, "unauthorized", found, request_id=request_id, headers=headers)(scope, receive, send)
                return
            needed: Scope = "read" if request.method in _LOOKS else "submit"
            if not allows(found.scope, needed):
                await problem(403, "forbidden", _missing(found, needed), request_id=request_id)(scope, receive, send)
                return
            request.state.identity = found
        await self._app(scope, receive, send)

    async def _identify(self, request: Request) -> Identity | str:
        """Who asks, or why they are nobody."""
        header = request.headers.get("authorization")
        if header is None and self._own is None:
            client = request.client.host if request.client else ""
            local = is_loopback(client) and is_loopback(request.url.hostname or "")
            if local and "origin" not in request.headers and not await run_in_threadpool(self._services.tokens.any):
                return Identity("local", "admin")
            return "this service has no token of its own and answers its own machine only; set OPD_API_TOKEN"
        scheme, _, token = (header or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return "send the header 'Authorization: Bearer TOKEN'"
        if self._own is not None and hmac.compare_digest(token_hash(token), self._own):
            return Identity("admin", "admin")
        holder = await run_in_threadpool(self._services.tokens.holder, token)
        if holder is None:
            return "the token is wrong, has expired or was revoked"
        return Identity(holder.name, holder.scope)


def identity(request: Request) -> Identity:
    """Who asks."""
    return cast(Identity, request.state.identity)


def require_owner(request: Request, job: Job) -> None:
    """Raise a 403 unless the job was submitted with this token, or the token may delete what others made."""
    who = identity(request)
    if job.created_by != who.name and not allows(who.scope, "admin"):
        raise ProblemError(403, "forbidden", f"the job was submitted by {job.created_by!r}: {_missing(who, 'admin')}")


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _missing(who: Identity, needed: Scope) -> str:
    return f"this needs a token of scope {needed!r}; {who.name!r} has {who.scope!r}"
