"""The dashboard behind security headers: ``streamlit run dashboard/server.py``. The pages are those of ``app.py``."""

from __future__ import annotations

import gc
from importlib import import_module
from pathlib import Path

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Everything comes from this server. Streamlit's own page has inline script and style, and makes modules of components
# from blob: addresses; no other host is ever asked, and no page of another may show this one in a frame.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


class Headers:
    """Adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


# A search for garbage goes through loaded modules as well: 0.14 s in which nothing is drawn. What all pages need is
# loaded before the first of them, and left out of the search.
for needed in ("pandas", "pyarrow", "httpx", "api.client", "api.schemas", "dashboard.data"):
    import_module(needed)
gc.collect()
gc.freeze()

app = st.App(Path(__file__).with_name("app.py"), middleware=[Middleware(Headers)])
