"""The stack under fault: a broker, an API with its reconciler and two workers, each a process that may be killed.

Leases and reconciling are shortened by settings, so that a lost worker costs seconds. Everything is a child of this
process and ends with it.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import redis

from api.client import Client
from cli.broker import Broker, choose
from cli.processes import Part, RunningPart
from opd_core.runs import database
from opd_core.runs.queue import TASK_NAME, celery_config
from opd_core.runs.settings import Settings
from opd_core.runs.store import RunStore
from tests.ports import free_port
from tests.tiny import TinyWorld

CODE = Path(__file__).resolve().parents[2]
LIGHT = CODE / "tests" / "chaos" / "light"
LEASE_S = 4.0
DISK_MB = 256
DISK_LOW_MB = 8
_PR_SET_CHILD_SUBREAPER = 36
TRAINER = "opd_core.training.main"


@dataclass(frozen=True)
class Setup:
    """Where records and files are. None: the embedded stack's own."""

    database_url: str | None = None
    artifacts_url: str | None = None
    light: bool = False
    """Whether ``light_trainer`` stands in for the real one."""


class Stack:
    """Use ``running``. ``parts`` are broker, api, worker1, worker2."""

    def __init__(self, home: Path, world: TinyWorld, setup: Setup, disk: Path | None) -> None:
        self.home, self.disk = home, disk
        for folder in ("run", "logs"):
            (home / folder).mkdir(parents=True)
        self._broker: Broker = choose(home, None)
        artifacts = setup.artifacts_url or (f"file://{disk}" if disk else f"file://{home}/artifacts")
        self.port = free_port()
        self.environment = {
            "OPD_HOME": str(home),
            "OPD_REDIS_URL": self._broker.url,
            "OPD_DATABASE_URL": setup.database_url or f"sqlite:///{home}/opd.db",
            "OPD_ARTIFACTS_URL": artifacts,
            "OPD_API_URL": f"http://127.0.0.1:{self.port}",
            "OPD_API_TOKEN": "chaos-chaos-chaos-chaos-chaos-chaos",
            "OPD_MODEL_ROOTS": str(world.root),
            "OPD_DATA_ROOTS": str(world.root),
            "OPD_LEASE_S": str(LEASE_S),
            "OPD_DRAIN_S": "5",
            "OPD_CANCEL_GRACE_S": "3",
            "OPD_RING_AFTER_S": "2",
            "OPD_RECONCILE_EVERY_S": "0.5",
            "OPD_TRAINER_THREADS": "1",
            "OPD_DISK_LOW_MB": str(DISK_LOW_MB) if disk else "0",
            "PYTHONPATH": f"{LIGHT}:{CODE}" if setup.light else str(CODE),
            "PYTHONUNBUFFERED": "1",
        }
        self.settings = Settings(
            home=home,
            redis_url=self._broker.url,
            database_url=self.environment["OPD_DATABASE_URL"],
            artifacts_url=artifacts,
        )
        self.parts: dict[str, RunningPart] = {}
        self.store: RunStore
        self.client: Client

    def start(self) -> None:
        """All parts, ready."""
        assert self._broker.command is not None
        self._run(Part("broker", self._broker.command, self._broker.answers))
        engine = database.connect(self.settings.database_url)
        database.migrate(engine)
        self.store = RunStore(engine)
        self.client = Client(self.environment["OPD_API_URL"], self.environment["OPD_API_TOKEN"])
        python = sys.executable
        self._run(
            Part("api", [python, "-m", "api.serve", "--port", str(self.port)], self._api_answers, self.environment)
        )
        for number in (1, 2):
            name = f"worker{number}"
            command = [
                python,
                "-m",
                "celery",
                "-A",
                "worker.app",
                "worker",
                "-c",
                "1",
                "-Q",
                "cpu",
                "-n",
                f"{name}@chaos",
            ]
            command += ["--loglevel", "INFO", "--without-mingle", "--without-gossip"]
            self._run(Part(name, command, lambda name=name: self._worker_shows(name), self.environment))
        for part in self.parts.values():
            part.wait_until_ready()

    def _run(self, part: Part) -> None:
        self.parts[part.name] = RunningPart(part, self.home)

    def _api_answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.environment['OPD_API_URL']}/livez", timeout=2.0, trust_env=False).is_success
        return False

    def _worker_shows(self, name: str) -> bool:
        pid = self.parts[name].pid
        return any(worker.pid == pid for worker in self.store.list_workers())

    def heal(self) -> list[str]:
        """Start again what is dead; which parts those were."""
        dead = [name for name, part in self.parts.items() if part.exit_code() is not None]
        for name in dead:
            self.parts[name].restart()
        return dead

    def stop(self) -> None:
        """End everything, last first."""
        for part in reversed(self.parts.values()):
            part.ask_to_stop()
            part.wait(part.part.grace_s)
            part.kill()
        self._broker.remove_socket()
        self.store.engine.dispose()
        self.client.close()

    # -- what faults reach for ----------------------------------------------------------------------------------------

    def redis(self) -> redis.Redis:
        """A client of the broker."""
        return redis.Redis.from_url(str(self.settings.redis_url), socket_timeout=2.0)

    def ring(self, job_id: str, times: int) -> None:
        """Ring a job's bell again."""
        from celery import Celery

        with Celery("chaos", set_as_current=False) as app:
            app.conf.update(celery_config(str(self.settings.redis_url)))
            for _ in range(times):
                app.send_task(TASK_NAME, args=[job_id], queue="cpu", ignore_result=True, retry=False)

    def trainers(self) -> list[psutil.Process]:
        """Training processes of this stack."""
        return [process for process in _descendants() if TRAINER in _command(process)]

    def pool_child(self, worker: str) -> psutil.Process | None:
        """The process in which a worker's supervisor runs."""
        try:
            children = psutil.Process(self.parts[worker].pid).children()
        except psutil.NoSuchProcess:
            return None
        return next((child for child in children if "celery" in _command(child)), None)


@contextmanager
def running(folder: Path, world: TinyWorld, setup: Setup) -> Iterator[Stack]:
    """A started stack in ``folder``; its artifacts on a disk of their own where one can be mounted."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what is orphaned stays our descendant
    disk = _mount(folder / "disk") if setup.artifacts_url is None else None
    stack = Stack(folder / "home", world, setup, disk)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        if disk is not None:
            subprocess.run(["umount", str(disk)], check=False)


def _mount(folder: Path) -> Path | None:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        return None
    return folder


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.2)
