"""The ladder, and a real embedded server."""

from __future__ import annotations

import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from cli import broker as module
from cli.broker import Broker, BrokerUnavailable, choose


@contextmanager
def started(broker: Broker, end: signal.Signals = signal.SIGTERM) -> Iterator[redis.Redis]:
    """The server runs for the block; ``end`` is how it is ended."""
    assert broker.command is not None
    process = subprocess.Popen(broker.command, stdout=subprocess.DEVNULL)
    client = redis.Redis.from_url(broker.url)
    try:
        deadline = time.monotonic() + 20
        while not broker.answers():
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)
        yield client
    finally:
        client.close()
        process.send_signal(end)
        process.wait(timeout=20)


def test_embedded_server_keeps_what_it_was_told(home: Path) -> None:
    broker = choose(home, None)
    assert broker.origin == "valkey-server"
    with started(broker, signal.SIGKILL) as client:
        client.xadd("opd:queue", {"job": "1"})
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        time.sleep(1.2)  # appendfsync everysec
    assert not broker.answers()
    with started(choose(home, None)) as client:
        assert client.xlen("opd:queue") == 1


def test_embedded_server_is_private(home: Path) -> None:
    broker = choose(home, None)
    assert broker.socket is not None
    with started(broker) as client:
        assert stat.S_IMODE(broker.socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(broker.socket.parent.stat().st_mode) == 0o700
        assert client.config_get("port") == {"port": "0"}
    broker.remove_socket()
    assert not broker.socket.exists()


def test_socket_in_a_deep_home_moves_to_a_short_private_folder(tmp_path: Path) -> None:
    broker = choose(tmp_path / ("deep" * 30), None)
    assert broker.socket is not None
    assert len(str(broker.socket)) <= 100
    assert stat.S_IMODE(broker.socket.parent.stat().st_mode) == 0o700
    with started(broker):
        assert broker.answers()
    broker.remove_socket()
    assert not broker.socket.parent.exists()


def test_home_with_a_space(tmp_path: Path) -> None:
    broker = choose(tmp_path / "my home", None)
    with started(broker):
        assert broker.answers()


def test_url_of_a_running_server_comes_first(home: Path) -> None:
    with started(choose(home, None)) as client:
        url = f"unix://{client.connection_pool.connection_kwargs['path']}?db=0"
        assert choose(home, url) == Broker(url, origin="OPD_REDIS_URL")


def test_silent_url_is_an_error_without_its_password(home: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="OPD_REDIS_URL") as caught:
        choose(home, "redis://:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


def test_server_on_path_is_the_second_choice(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "bin" / "redis-server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(server.parent))
    monkeypatch.setattr(module, "_wheel_binary", lambda: None)
    broker = choose(home, None)
    assert broker.command is not None
    assert broker.command[0] == str(server)


def test_nothing_found_names_three_ways_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(module, "_wheel_binary", lambda: None)
    with pytest.raises(BrokerUnavailable) as caught:
        choose(home, None)
    for way in ("opd[broker]", "valkey-server or redis-server", "OPD_REDIS_URL"):
        assert way in str(caught.value)
