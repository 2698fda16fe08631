"""Start the HTTP service: ``python -m api.serve --host 127.0.0.1 --port 8321``."""

from __future__ import annotations

import argparse
import gc
import os
import secrets
import sys
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from api.auth import is_loopback
from api.main import create_app
from opd_core.runs.logs import configure_logs
from opd_core.runs.settings import Settings
from opd_core.spec import UserError

# Longer than clients and proxies keep an idle connection: whoever closes it first must not be us, or a request that is
# on its way meets a closed door.
_KEEP_ALIVE_S = 75

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """Tells open streams to end as soon as the signal comes; uvicorn itself would wait for them."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.services.stopping.set()
        super().handle_exit(sig, frame)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises UserError rather than open an unprotected door."""
    app = create_app(protect(settings, host))
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        timeout_graceful_shutdown=3,
        timeout_keep_alive=_KEEP_ALIVE_S,
        access_log=False,
        server_header=False,
    )
    # What is loaded by now stays: a search for garbage that goes through it all holds up every request for 0.1 s.
    gc.collect()
    gc.freeze()
    _Server(config, app).run()


def protect(settings: Settings, host: str) -> Settings:
    """Settings with a token. On a loopback address a missing one is generated into {OPD_HOME}/token (0600)."""
    if settings.token() is not None:
        return settings
    if not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines: set OPD_API_TOKEN first, or use 127.0.0.1",
            param="--host",
            code="token_required",
        )
    settings.home.mkdir(parents=True, exist_ok=True)
    handle = os.open(settings.token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, 0o600)  # the file may have been there, empty and readable
        file.write(secrets.token_urlsafe(32))
    log.info("token_generated", file=str(settings.token_file))
    return settings


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m api.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default=8321, type=int, help="port to listen on")
    options = parser.parse_args()
    settings = Settings()
    configure_logs(settings.log_format)
    try:
        serve(settings, options.host, options.port)
    except UserError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
