"""A server of a test's own on a loopback port, behind which a function answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import torch


class Loopback:
    """``down`` makes it hang up on everybody; ``answered`` counts. One request is answered at a time."""

    def __init__(self, answers: Callable[[httpx.Request], httpx.Response]) -> None:
        self.down, self.answered = False, 0
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                if outer.down:
                    self.close_connection = True
                    return
                request = httpx.Request(self.command, f"http://server{self.path}", content=content)
                with lock, torch.no_grad():
                    response = answers(request)
                outer.answered += 1
                self.send_response(response.status_code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(response.content)))
                self.end_headers()
                self.wfile.write(response.content)

            do_GET = do_POST  # noqa: N815  (the name that http.server looks for)

            def log_message(self, *_: Any) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
