"""The whole service in a home of its own, for as long as a measurement takes. Demo models are reused if built."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.client import Client
from cli.stopping import StopRequest
from cli.up import Service, UpOptions
from opd_core.runs.settings import Settings
from opd_core.tasks.demo_models import ensure


@dataclass(frozen=True)
class Stack:
    """A running service: its client, and where its parts are."""

    client: Client
    settings: Settings
    dashboard_url: str


@contextmanager
def running(*, dashboard: bool) -> Iterator[Stack]:
    """A fresh service. Everything is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="opd-bench-") as home:
        cached = Settings().home / "models"
        if cached.is_dir():
            shutil.copytree(cached, Path(home) / "models")
        os.environ["OPD_HOME"] = home
        ensure(Path(home))
        settings = Settings()
        service = Service(UpOptions(settings, dashboard=dashboard), StopRequest(), lambda _: None)
        try:
            address = service.start()
            with Client(address.api_url, settings.token()) as client:
                reached = settings.model_copy(update={"redis_url": service.redis_url})
                yield Stack(client, reached, address.dashboard_url or "")
        finally:
            service.stop()
