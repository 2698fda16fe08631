"""Every service of docker-compose.yml as a process of this machine: its own command, its own environment.

Names inside the compose network become loopback addresses, mounted secrets a folder; nothing else is changed. Broker
and object store are real servers, the database is PostgreSQL where OPD_TEST_POSTGRES_URL names one, else SQLite.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from api.client import Client
from cli.broker import server_binary
from tests.ports import free_port
from tests.postgres import SERVER, fresh_database
from tests.s3 import s3_server
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

pytestmark = pytest.mark.service


class Stack:
    """``start(name)`` runs a service as compose would; ``stop()`` ends all of them, the last one first."""

    def __init__(self, folder: Path, world: Any, s3_environment: dict[str, str], bucket: str) -> None:
        self.folder, self.ports = folder, {"8321": str(free_port()), "8501": str(free_port())}
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        self._roots = {"/models": str(world.root), "/data": str(world.root)}
        self._s3, self._bucket = s3_environment, bucket
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str) -> subprocess.Popen[bytes]:
        service = SERVICES[name]
        home = self.folder / service["volumes"][0].split(":")[0]  # the named volume: shared where compose shares it
        home.mkdir(exist_ok=True)
        environment = {
            **{key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
            "HOME": str(home),
            "OPD_HOME": str(home),
            "OPD_LOG_FORMAT": "json",
            "OMP_NUM_THREADS": "1",
            **{key: self._value(key, str(value)) for key, value in service.get("environment", {}).items()},
        }
        if "AWS_ENDPOINT_URL" in environment:
            environment |= self._s3
        command = [self.ports.get(word, word) for word in service["command"]]
        command = [
            sys.executable if word == "python" else "127.0.0.1" if word == "0.0.0.0" else word for word in command
        ]
        log = (self.folder / f"{name}.log").open("wb")
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True)
        self._running.append(process)
        return process

    def _value(self, key: str, value: str) -> str:
        if key == "OPD_ARTIFACTS_URL":
            return value.replace("s3://opd", f"s3://{self._bucket}")
        if key == "OPD_API_URL":
            return f"http://127.0.0.1:{self.ports['8321']}"
        return self._roots.get(value, value.replace("/run/secrets", str(self.secrets)))

    def add(self, process: subprocess.Popen[bytes]) -> None:
        self._running.append(process)

    def stop(self) -> None:
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def logs(self) -> str:
        return "\n".join(f"== {file.name}\n{file.read_text()[-3000:]}" for file in self.folder.glob("*.log"))


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    if not SERVER:
        yield f"sqlite:///{tmp_path}/opd.db"
        return
    with fresh_database() as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def stack(tmp_path: Path, tiny_world: Any, database_url: str) -> Iterator[Stack]:
    with s3_server() as s3:
        stack = Stack(tmp_path, tiny_world, s3.environment, s3.url.removeprefix("s3://").split("/")[0])
        port, password = free_port(), "0123456789abcdef"
        broker = [str(server_binary()), "--port", str(port), "--bind", "127.0.0.1", "--requirepass", password]
        stack.add(
            subprocess.Popen([*broker, "--save", ""], stdout=subprocess.DEVNULL, cwd=tmp_path, start_new_session=True)
        )
        for name, value in {
            "opd_api_token": "token-of-the-compose-test",
            "opd_database_url": database_url,
            "opd_redis_url": f"redis://:{password}@127.0.0.1:{port}/0",
            "aws_credentials": "",
        }.items():
            (stack.secrets / name).write_text(value)
        try:
            yield stack
        finally:
            stack.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0).is_success
    except httpx.TransportError:
        return False


def test_the_services_of_the_compose_file_train_a_job(stack: Stack, tiny_world: Any) -> None:
    assert stack.start("prepare").wait(120) == 0, stack.logs()
    for name in ("api", "reconciler", "worker-cpu", "aside", "dashboard"):
        stack.start(name)
    api, page = (f"http://127.0.0.1:{stack.ports[port]}" for port in ("8321", "8501"))
    wait_until(lambda: answers(f"{api}/livez") and answers(f"{page}/_stcore/health"), stack.logs, 120)
    assert httpx.get(f"{api}/v1/jobs", timeout=10.0).status_code == 401
    with Client(api, "token-of-the-compose-test") as client:
        spec = {
            "name": "compose",
            "student": {"model": str(tiny_world.student)},
            "teacher": {"model": str(tiny_world.teacher)},
            "task": {"dataset": str(tiny_world.problems), "prompt_column": "question", "answer_column": "answer"},
            "rollout": {"prompts_per_step": 4, "max_new_tokens": 8},
            "schedule": {"steps": 3, "evaluate_every": 0, "checkpoint_every": 2},
        }
        job = client.wait(client.submit(spec).id, timeout_s=240, poll_s=0.3)
        assert job.status == "succeeded", f"{job.error}\n{stack.logs()}"
        target = stack.folder / "taken-home"
        exported = next(c for c in client.checkpoints(job.id).data if c.kind == "export")
        client.download(job.id, exported.id, target)
        assert (target / "model.safetensors").exists()
        ready = httpx.get(f"{api}/readyz", headers={"Authorization": "Bearer token-of-the-compose-test"}, timeout=10.0)
        assert ready.json()["checks"] == {"database": "ok", "broker": "ok", "artifacts": "ok"}
    # The artifacts are in the store alone: no service has kept a run in its own volume.
    assert not list(stack.folder.glob("*/artifacts/jobs/*"))
