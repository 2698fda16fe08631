"""Request bodies: JSON, and not too much of it."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import TOO_LARGE, problem

MAX_BYTES = 1 << 20


class JsonBody:
    """Refuses bodies above 1 MiB, and takes every other for JSON: ``curl -d`` calls it a form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > MAX_BYTES:
            request_id = scope.get("state", {}).get("request_id")
            response = problem(413, "too_large", TOO_LARGE, request_id=request_id, headers={"Connection": "close"})
            await response(scope, receive, send)
            return
        scope["headers"] = list(scope["headers"])
        MutableHeaders(scope=scope)["content-type"] = "application/json"
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BYTES:
                raise HTTPException(413)
            return message

        await self._app(scope, limited, send)
