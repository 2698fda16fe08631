"""Two machines with a worker each and one queue: one loses its power, its network, or is not told that it has lost it.

Database, broker and object store are real servers; nothing else is shared between the machines, not even a process
table. The trainer is the chaos harness's, without tensors: its weights show every step left out or done twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from api.client import Client
from api.schemas import Attempt
from cli.broker import server_binary
from tests.chaos.stack import CODE, LIGHT
from tests.hosts import Connect, Host, Line, possible, to_path, to_port
from tests.ports import free_port
from tests.postgres import SERVER, fresh_database
from tests.s3 import s3_server
from tests.waiting import wait_until
from worker.leash import leashed

pytestmark = [
    pytest.mark.service,
    pytest.mark.long,
    pytest.mark.skipif(not SERVER, reason="no PostgreSQL server"),
]
LEASE_S = 4
STEPS = 60
TOKEN = "token-of-the-two-hosts"


@dataclass
class Site:
    """What the machines share, and the machines."""

    folder: Path
    environment: dict[str, str]
    servers: dict[int, Connect]
    client: Client
    hosts: dict[str, Host] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """A machine with a worker."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        for old in home.glob("*.sock"):
            old.unlink()
        lines = {port: Line(home / f"{port}.sock", server) for port, server in self.servers.items()}
        worker = ["-m", "celery", "-A", "worker.app", "worker", "-c", "1", "-Q", "cpu", "-n", f"w@{name}"]
        command = [sys.executable, *worker, "--without-mingle", "--without-gossip"]
        environment = self.environment | {"OPD_HOME": str(home)}
        self.hosts[name] = Host(name, command, environment, lines, self.folder / f"{name}.log")
        wait_until(lambda: self.heard(name), lambda: f"a worker on {name}:\n{self.log(name)}", 90)

    def heard(self, name: str) -> bool:
        """Whether its worker has just been heard of."""
        return any(worker.host == name and worker.age_s < LEASE_S for worker in self.client.workers().data)

    def log(self, name: str) -> str:
        return _end(self.folder / f"{name}.log")

    def story(self, job_id: str) -> str:
        """Everything that is known of a job that did not do what it should have done."""
        known = [self.client.job(job_id), *self.attempts(job_id), *self.client.events(job_id).data]
        logs = [self.folder / f"{name}.log" for name in (*self.hosts, "api", "broker")]
        return "\n".join([*map(str, [*known, *self.client.workers().data]), *(_end(log) for log in logs)])

    def submit(self, name: str, steps: int = STEPS) -> str:
        schedule = {"steps": steps, "evaluate_every": 0, "checkpoint_every": 5, "max_restarts": 5}
        models = {"student": {"model": "demo/student"}, "teacher": {"model": "demo/teacher"}}
        spec: dict[str, Any] = {**models, "task": {"name": "demo/word-problems"}, "name": name, "seed": 3}
        return self.client.submit({**spec, "schedule": schedule}).id

    def attempts(self, job_id: str) -> list[Attempt]:
        return sorted(self.client.attempts(job_id).data, key=lambda one: one.attempt)

    def place(self, job_id: str) -> str:
        """The machine that trains the job, once it has taken a step there."""

        def trains() -> bool:
            job, attempts = self.client.job(job_id), self.attempts(job_id)
            return job.status == "running" and bool(attempts) and (job.progress.step or 0) >= 7

        wait_until(trains, lambda: f"{job_id} trains:\n{self.story(job_id)}", 60)
        return str(self.attempts(job_id)[-1].host)

    def weights(self, job_id: str) -> str:
        """The digest of what the finished job exported."""
        wait_until(lambda: self.client.job(job_id).terminal, lambda: f"{job_id} ends:\n{self.story(job_id)}", 120)
        job = self.client.job(job_id)
        assert (job.status, job.progress.step) == ("succeeded", STEPS), self.story(job_id)
        (export,) = (one for one in self.client.checkpoints(job_id).data if one.kind == "export")
        return next(file.sha256 for file in export.files if file.name.endswith(".safetensors"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    if not possible():
        pytest.skip("no namespaces of our own on this machine")
    for name in [name for name in os.environ if name.startswith("OPD_") and not name.startswith("OPD_TEST_")]:
        monkeypatch.delenv(name)
    with ExitStack() as stack:
        database, s3 = stack.enter_context(fresh_database()), stack.enter_context(s3_server())
        broker_port, database_port, api_port = free_port(), free_port(), free_port()
        store = URL.create(
            "postgresql+psycopg", database.username or database.query.get("user"), database.password,
            "127.0.0.1", database_port, database.database,
        )  # fmt: skip
        environment = {
            **os.environ,
            **s3.environment,
            "OPD_HOME": str(tmp_path),
            "OPD_DATABASE_URL": store.render_as_string(hide_password=False),
            "OPD_REDIS_URL": f"redis://127.0.0.1:{broker_port}/0",
            "OPD_ARTIFACTS_URL": s3.url,
            "OPD_API_TOKEN": TOKEN,
            "OPD_LEASE_S": str(LEASE_S),
            "OPD_RECONCILE_EVERY_S": "0.5",
            "OPD_RING_AFTER_S": "2",
            "PYTHONPATH": f"{LIGHT}:{CODE}",
        }
        broker = [str(server_binary()), "--port", str(broker_port), "--bind", "127.0.0.1", "--save", ""]
        _started(stack, broker, environment, tmp_path / "broker.log")
        outside = environment | {
            "OPD_DATABASE_URL": database.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        }
        api = [sys.executable, "-m", "api.serve", "--port", str(api_port)]
        subprocess.run([sys.executable, "-m", "api.prepare"], env=outside, check=True, capture_output=True)
        _started(stack, api, outside, tmp_path / "api.log")
        address = f"http://127.0.0.1:{api_port}"
        wait_until(lambda: _answers(f"{address}/livez"), "the API", 60)
        client = stack.enter_context(Client(address, TOKEN))
        s3_port = int(s3.environment["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])
        servers = {
            broker_port: to_port(broker_port),
            database_port: _reach(database),
            s3_port: to_port(s3_port),
        }
        site = Site(tmp_path, environment, servers, client)
        stack.callback(lambda: [host.kill() for host in site.hosts.values()])
        yield site


def _started(stack: ExitStack, command: list[str], environment: dict[str, str], log: Path) -> None:
    own = leashed(command, signal=signal.SIGKILL)
    process = subprocess.Popen(own, env=environment, stdout=(file := log.open("wb")), stderr=file)
    stack.callback(lambda: (process.kill(), process.wait(), file.close()))


def _reach(database: URL) -> Connect:
    """The server of that database, which listens on a port or in a folder."""
    folder, port = database.query.get("host"), database.port or 5432
    if isinstance(folder, str) and folder.startswith("/"):
        return to_path(Path(folder) / f".s.PGSQL.{port}")
    return to_port(port)


def _end(log: Path) -> str:
    """The last of it."""
    return f"{log.name}:\n{log.read_text()[-3000:]}" if log.exists() else ""


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0).is_success
    except httpx.TransportError:
        return False


def test_the_queue_outlives_a_machine_and_a_network(site: Site) -> None:
    for name in ("north", "south"):
        site.start(name)
    first, second = site.submit("first"), site.submit("second")
    places = {job_id: site.place(job_id) for job_id in (first, second)}
    assert set(places.values()) == {"north", "south"}, "each machine takes one"

    # A power cut in the north: its job goes on in the south, after the south's own.
    moved, stayed = sorted(places, key=lambda job_id: places[job_id] == "south")
    site.hosts["north"].kill()
    undisturbed = site.weights(stayed)
    assert site.weights(moved) == undisturbed
    assert [one.host for one in site.attempts(stayed)] == ["south"]
    assert [one.host for one in site.attempts(moved)] == ["north", "south"]

    # The north comes back. A job loses its network for longer than its lease: the other machine takes it, and what the
    # first one still does counts for nothing.
    site.start("north")
    third = site.submit("third")
    here = site.place(third)
    there = {"north": "south", "south": "north"}[here]
    site.hosts[here].cut()
    wait_until(lambda: len(site.attempts(third)) == 2, lambda: f"the other takes it:\n{site.story(third)}", 60)
    site.hosts[here].mend()
    assert site.weights(third) == undisturbed
    assert [one.host for one in site.attempts(third)] == [here, there]
    wait_until(lambda: site.heard(here), lambda: f"{here} is back:\n{site.log(here)}", 60)
    fourth = [site.submit("fourth"), site.submit("fifth")]
    assert {site.place(job_id) for job_id in fourth} == {"north", "south"}
    assert {site.weights(job_id) for job_id in fourth} == {undisturbed}


def test_a_silent_network_frees_the_worker_before_the_kernel_gives_up(site: Site) -> None:
    """Nothing tells the machine: every call on the other side just waits."""
    for name in ("north", "south"):
        site.start(name)
    first = site.submit("first")
    here = site.place(first)
    there = {"north": "south", "south": "north"}[here]
    site.hosts[here].silence()
    digest = site.weights(first)
    assert [one.host for one in site.attempts(first)] == [here, there]
    log = site.folder / f"{here}.log"
    wait_until(lambda: "raised unexpected: OperationalError" in log.read_text(), lambda: site.log(here), 60)
    site.hosts[here].hear()
    wait_until(lambda: site.heard(here), lambda: f"{here} is back:\n{site.log(here)}", 60)
    both = [site.submit("second"), site.submit("third")]
    assert {site.place(job_id) for job_id in both} == {"north", "south"}
    assert {site.weights(job_id) for job_id in both} == {digest}
