"""``opd up`` for real, without the dashboard: ready, used, stopped, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cli import up
from cli.main import app
from cli.processes import Part, PartFailed, RunningPart
from opd_core.runs.settings import Settings
from tests.cli.running import processes_of, service
from tests.waiting import wait_until


def part_pid(home: Path, words: str) -> int:
    """The part whose command line has these words (not what it started itself)."""
    pids = [pid for pid, command in processes_of(home).items() if words in command]
    assert pids, words
    return min(pids)


@pytest.mark.service
def test_up_serves_and_leaves_nothing(home: Path) -> None:
    with service(home) as process:
        address = json.loads((home / "run" / "service.json").read_text())
        token = (home / "token").read_text().strip()
        assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
        assert token not in (home / "up.txt").read_text()

        url = address["api_url"]
        assert httpx.get(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert httpx.get(f"{url}/v1/jobs").status_code == 401

        # Other terminals find the service without any setting but OPD_HOME.
        listed = CliRunner().invoke(app, ["jobs", "--json"])
        assert (listed.exit_code, listed.output) == (0, "")
        refused = CliRunner().invoke(app, ["submit", "-"], input="name: x")
        assert refused.exit_code == 1
        assert "student" in refused.output

        second = subprocess.run(
            [sys.executable, "-m", "cli", "up", "--no-dashboard"], capture_output=True, text=True, check=False
        )
        assert second.returncode == 1
        assert "already running" in second.stderr
        assert url in second.stderr
        assert httpx.get(f"{url}/livez").status_code == 200

        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert not processes_of(home)
        assert not (home / "run" / "service.json").exists()

    with service(home):  # the token is kept
        assert (home / "token").read_text().strip() == token


@pytest.mark.service
def test_killed_up_takes_everything_along(home: Path) -> None:
    with service(home) as process:
        assert len(processes_of(home)) >= 5  # up, broker, api, worker and its pool
        process.kill()
        process.wait()
        wait_until(lambda: not processes_of(home), "something is left", 30)


@pytest.mark.service
def test_part_that_dies_is_started_again_once(home: Path) -> None:
    with service(home) as process:
        url = json.loads((home / "run" / "service.json").read_text())["api_url"]
        first = part_pid(home, "api.serve")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: "starting it again" in (home / "up.txt").read_text(), "not restarted", 60)
        wait_until(lambda: _is_alive(url), "not back", 60)
        os.kill(part_pid(home, "api.serve"), signal.SIGKILL)
        assert process.wait(timeout=60) == 1
        assert "died a second time" in (home / "up.txt").read_text()


def _is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez").is_success
    except httpx.TransportError:
        return False


def test_taken_port_is_said_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said: list[str] = []
        chosen = up._port("API", None, port, "--api-port", said.append)
        assert chosen != port
        assert str(port) in said[0]
        with pytest.raises(up.CannotStart, match=f"--api-port {port}"):
            up._port("API", port, 8321, "--api-port", said.append)


def test_token_of_the_environment_is_not_written_down(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPD_API_TOKEN", "from-the-environment")
    up._make_token(Settings())
    assert not (home / "token").exists()
    shown = up.summary(Settings(), up.Address("http://127.0.0.1:1", None, 1))
    assert "from-the-environment" not in shown


def test_part_that_fails_to_start_shows_its_log(home: Path) -> None:
    (home / "logs").mkdir()
    command = [sys.executable, "-c", "print('the reason why'); raise SystemExit(3)"]
    running = RunningPart(Part(name="api", command=command, ready=lambda: False), home)
    with pytest.raises(PartFailed, match=r"(?s)exit code 3.*the reason why"):
        running.wait_until_ready()
    running.kill()


def test_part_that_ignores_the_request_is_killed(home: Path) -> None:
    (home / "logs").mkdir()
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); open('up', 'w'); time.sleep(600)"
    part = Part(name="deaf", command=[sys.executable, "-c", code], ready=(home / "up").exists, grace_s=0.5, nice=7)
    running = RunningPart(part, home)
    running.wait_until_ready()
    assert os.getpriority(os.PRIO_PROCESS, running.pid) == 7 + os.getpriority(os.PRIO_PROCESS, 0)
    if (session := Path(f"/proc/{running.pid}/autogroup")).exists():  # it counts against other sessions, too
        assert session.read_text().endswith("nice 7\n")
    running.stop()
    assert running.how_it_ended() == "killed by SIGKILL"
