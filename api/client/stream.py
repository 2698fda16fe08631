"""Live updates: a server-sent event stream that goes on where it broke off."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx

from api.client import transport
from api.client.errors import ApiError, raise_for
from api.client.transport import Transport

LiveEvent = tuple[str | None, str, Any]


class Stream(Transport):
    """Follow a job."""

    def stream(self, id: str, after: str | None = None, types: Iterable[str] | None = None) -> Iterator[LiveEvent]:
        """Live updates as (id, type, data), the last one of type ``end``.

        Reconnects and goes on behind the last id it saw. Without ``after`` it starts with the present state.
        Raises httpx.TransportError when the service stays away, ApiError when it refuses.
        """
        params = {"types": ",".join(types)} if types else {}
        last, failures = after, 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
            # Keep-alives come every 15 s: a minute of silence is a dead connection.
            timeout = httpx.Timeout(10.0, read=60.0)
            try:
                with self._http.stream(
                    "GET", f"/v1/jobs/{id}/stream", params=params, headers=headers, timeout=timeout
                ) as response:
                    raise_for(response)
                    for event_id, kind, data in _server_sent_events(response.iter_lines()):
                        failures = 0
                        last = event_id or last
                        yield event_id, kind, data
                        if kind == "end":
                            return
            except httpx.TransportError:
                failures += 1
                if failures >= transport.TRIES:
                    raise
            except ApiError as error:
                failures += 1
                if error.status < 500 or failures >= transport.TRIES:
                    raise
            time.sleep(transport.FIRST_PAUSE_S * 2**failures)


def _server_sent_events(lines: Iterable[str]) -> Iterator[LiveEvent]:
    """Parse https://html.spec.whatwg.org/multipage/server-sent-events.html; ``data`` is JSON in our streams."""
    event_id, kind, data = None, "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield event_id, kind, json.loads("\n".join(data))
            event_id, kind, data = None, "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            event_id = value
        elif field == "event":
            kind = value
        elif field == "data":
            data.append(value)
