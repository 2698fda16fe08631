"""``opd up``: broker, database, API, worker and dashboard on this machine, as children that never outlive it."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from api.client import ApiError, Client
from cli.address import Address, announce, announced, withdraw
from cli.broker import Broker, choose
from cli.processes import Part, PartFailed, RunningPart
from cli.shell import demo_body, demo_file, program
from cli.stopping import StopRequest
from opd_core.runs import database
from opd_core.runs.queue import ASIDE
from opd_core.runs.settings import Settings

API_PORT = 8321
DASHBOARD_PORT = 8501
_HOST = "127.0.0.1"
# Niceness of what may wait for the worker that trains. Broker and API may not: they need little, and are waited for.
_POLITE = 5
_WORKER_MARGIN_S = 15.0  # beyond drain_s: time to record what happened

Say = Callable[[str], None]


class CannotStart(RuntimeError):
    """The service cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class UpOptions:
    """Ports: None = the default, or a free one when that is taken."""

    settings: Settings
    api_port: int | None = None
    dashboard_port: int | None = None
    dashboard: bool = True
    queues: str = "cpu"


class Service:
    """The whole service. ``start`` then ``watch``; always ``stop``. Use it from the main thread (worker/leash.py)."""

    def __init__(self, options: UpOptions, stop: StopRequest, say: Say) -> None:
        self._options = options
        self._settings = options.settings
        self._home = options.settings.home
        self._stop = stop
        self._say = say
        self._running: list[RunningPart] = []
        self._lock: IO[str] | None = None
        self._broker: Broker | None = None
        self.address: Address | None = None

    def start(self) -> Address:
        """Start every part and wait until all are ready. Raises CannotStart, BrokerUnavailable, PartFailed, Stopped."""
        _check_installed(dashboard=self._options.dashboard)
        for folder in ("run", "logs"):
            (self._home / folder).mkdir(parents=True, exist_ok=True)
        self._home.chmod(0o700)
        self._lock = _lock(self._home)
        _make_token(self._settings)
        address = self._choose_address()
        self._broker = choose(self._home, self._settings.redis_url)
        self._say(f"broker     {self._broker.origin}")
        if self._broker.command is not None:
            self._run(_broker_part(self._broker, self._broker.command)).wait_until_ready(self._stop.sleep)
        engine = database.connect(self._settings.database_url)
        database.migrate(engine)
        engine.dispose()
        self._say("database   ready")
        # Started together and awaited in order: their imports overlap.
        environment = self._environment(self._broker, address)
        parts = [self._run(part) for part in self._parts(address, environment)]
        for running in parts:
            running.wait_until_ready(self._stop.sleep)
            self._say(f"{running.part.name:<10} ready")
        announce(self._home, address)
        self.address = address
        return address

    @property
    def redis_url(self) -> str | None:
        """Where the broker of the started service is."""
        return self._broker.url if self._broker else None

    def watch(self) -> None:
        """Until a stop is asked for (raises Stopped): restart a dead part. Raises PartFailed when it dies twice."""
        while True:
            for running in self._running:
                if running.exit_code() is None:
                    continue
                if running.deaths:
                    raise PartFailed(
                        f"The {running.part.name} died a second time ({running.how_it_ended()}).{running.excerpt()}"
                    )
                self._say(f"The {running.part.name} died ({running.how_it_ended()}); starting it again.")
                running.restart()
            self._stop.sleep(0.5)

    def stop(self) -> None:
        """End every part in reverse order; a second Ctrl-C ends what is left at once."""
        for running in reversed(self._running):
            self._say(f"stopping   {running.part.name}")
            running.ask_to_stop()
            deadline = time.monotonic() + running.part.grace_s
            while not running.wait(0.1) and time.monotonic() < deadline and self._stop.count < 2:
                pass
            running.kill()
        self._running.clear()
        if self._broker is not None:
            self._broker.remove_socket()
        if self._lock is not None:
            withdraw(self._home)
            self._lock.close()
            self._lock = None

    def _run(self, part: Part) -> RunningPart:
        running = RunningPart(part, self._home)
        self._running.append(running)
        return running

    def _choose_address(self) -> Address:
        api = _port("API", self._options.api_port, API_PORT, "--api-port", self._say)
        if not self._options.dashboard:
            return Address(f"http://{_HOST}:{api}", None, os.getpid())
        board = _port("dashboard", self._options.dashboard_port, DASHBOARD_PORT, "--dashboard-port", self._say)
        return Address(f"http://{_HOST}:{api}", f"http://{_HOST}:{board}", os.getpid())

    def _environment(self, broker: Broker, address: Address) -> dict[str, str]:
        settings = self._settings
        # Absolute, because the parts do not run in the user's directory.
        return {
            "OPD_HOME": str(self._home),
            "OPD_REDIS_URL": broker.url,
            "OPD_API_URL": address.api_url,
            "OPD_MODEL_ROOTS": ":".join(str(root) for root in settings.model_roots),
            "OPD_DATA_ROOTS": ":".join(str(root) for root in settings.data_roots),
            "PYTHONUNBUFFERED": "1",
        }

    def _parts(self, address: Address, environment: dict[str, str]) -> list[Part]:
        parts = [
            _api_part(address, environment),
            self._worker_part("worker", "opd", self._options.queues, address, environment),
            # Answers questions about runs while the other one trains, on what that one leaves of the cores.
            self._worker_part("aside", "aside", ASIDE, address, environment, nice=2 * _POLITE),
        ]
        if address.dashboard_url is not None:
            parts.append(_dashboard_part(address.dashboard_url, environment))
        return parts

    def _worker_part(
        self, part: str, kind: str, queues: str, address: Address, environment: dict[str, str], *, nice: int = 0
    ) -> Part:
        name = f"{kind}@{socket.gethostname()}"
        client = Client(address.api_url, self._settings.token())

        def ready() -> bool:
            with suppress(ApiError, httpx.HTTPError):
                running = next(one for one in self._running if one.part.name == part)
                return any(worker.name == name and worker.pid == running.pid for worker in client.workers().data)
            return False

        command = ["celery", "-A", "worker.app", "worker", "-c", "1", "-Q", queues, "-n", name]
        return Part(
            name=part,
            command=[sys.executable, "-m", *command, "--loglevel", "INFO", "--without-mingle", "--without-gossip"],
            ready=ready,
            environment=environment,
            nice=nice,
            grace_s=self._settings.drain_s + _WORKER_MARGIN_S,
        )


def summary(settings: Settings, address: Address) -> str:
    """What a newcomer needs: the addresses, the token, and a command to paste."""
    token = "$OPD_API_TOKEN" if settings.api_token else f"$(cat {shlex.quote(str(settings.token_file))})"
    lines = [
        f"API        {address.api_url}   (documentation: {address.api_url}/docs)",
        f"token      {'OPD_API_TOKEN' if settings.api_token else settings.token_file}",
        f"logs       {settings.home / 'logs'}",
        "",
        "Submit a job from another terminal:",
        f"  {program('opd')} submit {demo_file()} --watch",
        f'  curl -X POST {address.api_url}/v1/jobs -H "Authorization: Bearer {token}" \\',
        f"       -H 'Content-Type: application/json' -d {demo_body()}",
    ]
    if address.dashboard_url:
        lines.insert(0, f"dashboard  {address.dashboard_url}")
    return "\n".join(lines)


def _broker_part(broker: Broker, command: list[str]) -> Part:
    return Part(name="broker", command=command, ready=broker.answers, ready_within_s=20.0)


def _api_part(address: Address, environment: dict[str, str]) -> Part:
    port = address.api_url.rpartition(":")[2]
    return Part(
        name="api",
        command=[sys.executable, "-m", "api.serve", "--port", port],
        ready=lambda: _answers(f"{address.api_url}/livez"),
        environment=environment,
    )


def _dashboard_part(url: str, environment: dict[str, str]) -> Part:
    return Part(
        name="dashboard",
        command=[sys.executable, "-m", "dashboard.serve", "--host", _HOST, "--port", url.rpartition(":")[2]],
        ready=lambda: _answers(f"{url}/_stcore/health"),
        environment=environment,
        nice=_POLITE,
    )


def _check_installed(*, dashboard: bool) -> None:
    """One sentence now instead of three failing parts later."""
    needed = {"api": "fastapi", "worker": "torch", **({"dashboard": "streamlit"} if dashboard else {})}
    missing = [part for part, module in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        hint = " (or use --no-dashboard)" if missing == ["dashboard"] else ""
        raise CannotStart(f"Not installed: {', '.join(missing)}. Run: pip install 'opd[{','.join(missing)}]'{hint}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _lock(home: Path) -> IO[str]:
    file = (home / "run" / "up.lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        here = announced(home)
        where = f" at {here.api_url} (process {here.pid})" if here else ", still starting"
        raise CannotStart(
            f"A service of {home} is already running{where}. Use it, stop it first, or choose another --home."
        ) from error
    return file


def _make_token(settings: Settings) -> None:
    """A token file, readable by its owner alone, unless there is a token already."""
    if settings.token() is not None:
        if settings.api_token is None:
            settings.token_file.chmod(0o600)
        return
    settings.token_file.unlink(missing_ok=True)  # an empty one
    handle = os.open(settings.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def _port(what: str, wanted: int | None, default: int, option: str, say: Say) -> int:
    if _is_free(wanted or default):
        return wanted or default
    if wanted is not None:
        raise CannotStart(f"{option} {wanted}: that port is taken on {_HOST}; choose another one.")
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = int(probe.getsockname()[1])
    say(f"Port {default} is taken; the {what} uses {port}.")
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
