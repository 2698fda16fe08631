"""A real service of ``opd up`` in a temporary home, for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.client import Client
from tests.ports import free_port
from tests.tiny import TinyWorld, tiny_body
from tests.waiting import wait_until

READY = "Ctrl-C stops everything"


def processes_of(home: Path) -> dict[int, str]:
    """Process id -> command line of everything of this home: by its environment or (the broker) its directory."""
    wanted = f"OPD_HOME={home}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            inside = (entry / "cwd").readlink().is_relative_to(home)
            if inside or wanted in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended while we looked
            continue
    return {pid: command for pid, command in found.items() if command}


@contextmanager
def service(home: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``opd up``, ready; asked to stop at the end if it still runs. What it leaves is killed, and fails the test."""
    # A port of its own: two services that start at the same moment may both find the usual one free.
    command = [sys.executable, "-m", "cli", "up", "--no-dashboard", "--api-port", str(free_port())]
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("OPD_")}  # not the developer's
    environment = {**theirs, "OPD_HOME": str(home), **environment}
    output = home / "up.txt"
    with output.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        wait_until(lambda: READY in output.read_text() or process.poll() is not None, "not ready", 120)
        assert process.poll() is None, output.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            left = processes_of(home)
            process.kill()
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    assert not left


@dataclass(frozen=True)
class Running:
    """A service that runs, and a client of it."""

    home: Path
    api_url: str
    token: str
    client: Client
    spec: Callable[..., dict[str, Any]]
    up: subprocess.Popen[str]

    def run_directory(self, job_id: str) -> Path:
        return self.home / "artifacts" / "jobs" / job_id


@contextmanager
def running_service(home: Path, world: TinyWorld) -> Iterator[Running]:
    """``opd up`` in ``home``, ready, with the tiny models and data allowed; what is lost is soon found again."""
    root = str(world.root)

    def spec(**sections: Any) -> dict[str, Any]:
        return tiny_body(world, **{"rollout": {"prompts_per_step": 6, "max_new_tokens": 8}, **sections})

    with service(home, OPD_MODEL_ROOTS=root, OPD_DATA_ROOTS=root, OPD_LEASE_S="6") as process:
        api_url = json.loads((home / "run" / "service.json").read_text())["api_url"]
        token = (home / "token").read_text().strip()
        with Client(api_url, token) as client:
            yield Running(home, api_url, token, client, spec, process)
