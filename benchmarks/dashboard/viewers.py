"""Viewers without a screen: the browser's side of the conversation with the dashboard, nothing drawn.

A browser draws on its viewer's machine; on the machine that trains it would measure itself. A viewer opens a page,
lets every panel refresh itself as often as the page asks for, remembers what a browser would remember, and reads all
that is sent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect


@dataclass
class Viewer:
    """One open page. ``refreshes`` counts the panels' refreshes that were answered."""

    url: str
    refreshes: int = 0
    received: int = 0  # bytes
    _page: str = ""
    # part of the page -> the messages of its newest drawing, which need not be sent again
    _known: dict[tuple[str, ...], set[str]] = field(default_factory=dict)
    _ends: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        """Until ``end``."""
        address = urlsplit(self.url)
        socket = f"ws://{address.netloc}/_stcore/stream"
        async with connect(socket, subprotocols=["streamlit"], max_size=None) as server:  # type: ignore[list-item]
            await self._ask(server)
            listening = asyncio.create_task(self._listen(server))
            try:
                await self._ends.wait()
            finally:
                listening.cancel()

    def end(self) -> None:
        self._ends.set()

    async def _ask(self, server: ClientConnection, panel: str = "") -> None:
        address, message = urlsplit(self.url), BackMsg()
        rerun = message.rerun_script
        rerun.query_string, rerun.fragment_id, rerun.is_auto_rerun = address.query, panel, bool(panel)
        rerun.page_script_hash, rerun.page_name = self._page, "" if self._page else address.path.strip("/")
        rerun.cached_message_hashes.extend(set().union(*self._known.values()))
        await server.send(message.SerializeToString())

    async def _listen(self, server: ClientConnection) -> None:
        ticking: dict[str, asyncio.Task[None]] = {}
        drawn: set[str] = set()

        def stop(panels: Iterable[str]) -> None:
            for panel in panels:
                if (tick := ticking.pop(panel, None)) is not None:
                    tick.cancel()

        try:
            async for data in server:
                assert isinstance(data, bytes)
                self.received += len(data)
                message = ForwardMsg.FromString(data)
                if message.metadata.cacheable and message.hash:
                    drawn.add(message.hash)
                match message.WhichOneof("type"):
                    case "ref_hash":
                        drawn.add(message.ref_hash)
                    case "navigation":
                        self._page = message.navigation.page_script_hash
                    case "new_session" if not message.metadata.run.fragment_ids:
                        stop(list(ticking))  # the page is drawn anew and says again what refreshes itself
                    case "auto_rerun":
                        panel, seconds = message.auto_rerun.fragment_id, message.auto_rerun.interval
                        stop([panel])
                        ticking[panel] = asyncio.create_task(self._tick(server, panel, seconds))
                    case "stop_auto_rerun":
                        stop(message.stop_auto_rerun.fragment_ids)
                    case "script_finished":
                        self.refreshes += 1
                        self._known[tuple(message.metadata.run.fragment_ids)] = drawn
                        drawn = set()
        finally:
            stop(list(ticking))

    async def _tick(self, server: ClientConnection, panel: str, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._ask(server, panel)


@contextmanager
def watching(urls: Sequence[str], patience_s: float = 300.0) -> Iterator[list[Viewer]]:
    """That many viewers in a thread of their own, each once its page has been drawn. They leave at the end."""
    viewers = [Viewer(url) for url in urls]
    loop = asyncio.new_event_loop()

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for viewer in viewers:
                group.create_task(viewer.watch())

    thread = threading.Thread(target=loop.run_until_complete, args=(all_of_them(),), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + patience_s
        while any(viewer.refreshes < 2 for viewer in viewers):
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(
                    f"the dashboard did not answer: {[viewer.refreshes for viewer in viewers]} refreshes"
                )
            time.sleep(0.2)
        yield viewers
    finally:
        for viewer in viewers:
            loop.call_soon_threadsafe(viewer.end)
        thread.join(30)
