"""Real services for the tests of this folder, with the tiny models allowed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from tests.cli.running import service
from tests.tiny import tiny_body


@dataclass(frozen=True)
class Running:
    """A service that runs, and a client of it."""

    home: Path
    client: Client
    spec: Callable[..., dict[str, Any]]
    up: subprocess.Popen[str]

    def run_directory(self, job_id: str) -> Path:
        return self.home / "artifacts" / "jobs" / job_id


@contextmanager
def running_service(home: Path, world: Any) -> Iterator[Running]:
    """``opd up`` in ``home``, ready, with the tiny models and data allowed."""
    root = str(world.root)

    def spec(**sections: Any) -> dict[str, Any]:
        return tiny_body(world, **{"rollout": {"prompts_per_step": 6, "max_new_tokens": 8}, **sections})

    with service(home, OPD_MODEL_ROOTS=root, OPD_DATA_ROOTS=root, OPD_LEASE_S="6") as process:
        address = json.loads((home / "run" / "service.json").read_text())
        with Client(address["api_url"], (home / "token").read_text().strip()) as client:
            yield Running(home, client, spec, process)


@pytest.fixture(scope="module", autouse=True)
def no_settings_of_ours() -> Iterator[None]:
    """The developer's own OPD_* variables stay out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("OPD_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def running(tiny_world: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service for all tests that leave it running. It survives one death of each part, so one test may kill one."""
    with running_service(tmp_path_factory.mktemp("home"), tiny_world) as service:
        yield service
