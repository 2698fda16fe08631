"""Machines of their own on this one: each with its own network, process table, name and home.

A machine reaches the outside only through the lines that it was given: loopback ports of its own, carried over a unix
socket to a server out here. Cutting its lines is a network that fails, silencing them one that swallows what it is
given; killing it is a power cut. A machine goes with the process that started it, however that ends.

    unshare ... python -m tests.hosts NAME PORT=SOCKET ... -- COMMAND ...     (what runs inside)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from worker.leash import leashed

_OWN = ("unshare", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_SILENCE, _HEAR = signal.SIGUSR1, signal.SIGUSR2
Connect = Callable[[], socket.socket]


def possible() -> bool:
    """Whether this machine lets us have machines (root on Linux, as a rule)."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_OWN, "true"], capture_output=True, check=False).returncode == 0


class Line:
    """Carries connections to a unix socket on to a server, until it is cut."""

    def __init__(self, path: Path, server: Connect) -> None:
        self.path, self._server = path, server
        self._whole = True
        self._open: set[socket.socket] = set()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        _serve(listener, self._carry)

    def cut(self) -> None:
        """Drop what is connected, and refuse what comes."""
        self._whole = False
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Carry again."""
        self._whole = True

    def _carry(self, inside: socket.socket) -> None:
        if not self._whole:
            inside.close()
            return
        outside = self._server()
        self._open |= {inside, outside}
        _couple(inside, outside, lambda: self._open.difference_update((inside, outside)))


class Host:
    """A running machine. ``lines``: port inside -> line to the outside."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], lines: Mapping[int, Line], log: Path
    ) -> None:
        self.name, self.lines = name, lines
        wires = [f"{port}={line.path}" for port, line in lines.items()]
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                leashed(
                    [*_OWN, sys.executable, "-m", "tests.hosts", name, *wires, "--", *command], signal=signal.SIGKILL
                ),
                env=dict(environment),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def cut(self) -> None:
        """Its network fails."""
        for line in self.lines.values():
            line.cut()

    def mend(self) -> None:
        """Its network is back."""
        for line in self.lines.values():
            line.mend()

    def silence(self) -> None:
        """Nothing goes through any more, and nobody is told."""
        self._signal(_SILENCE)

    def hear(self) -> None:
        """It does again."""
        self._signal(_HEAR)

    def _signal(self, number: int) -> None:
        """To the first process inside: the only child of ``unshare``."""
        outer = self._process.pid
        os.kill(int(Path(f"/proc/{outer}/task/{outer}/children").read_text()), number)

    def kill(self) -> None:
        """A power cut: everything on it is gone at once."""
        self._process.kill()
        self._process.wait()


def to_port(port: int) -> Connect:
    """Connections to a loopback port of this machine."""
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=10.0)


def to_path(path: Path) -> Connect:
    """Connections to a unix socket."""

    def connect() -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(path))
        return one

    return connect


def _serve(listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
    listener.listen(128)

    def loop() -> None:
        while True:
            one, _ = listener.accept()
            try:
                take(one)
            except OSError:
                one.close()

    threading.Thread(target=loop, daemon=True).start()


def _couple(one: socket.socket, other: socket.socket, done: Callable[[], None]) -> None:
    """Everything that either says goes to the other, until one of them ends."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            source.settimeout(None)
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        done()

    for pair in ((one, other), (other, one)):
        threading.Thread(target=pump, args=pair, daemon=True).start()


def _inside(arguments: list[str]) -> int:
    name, *wires = arguments[: arguments.index("--")]
    socket.sethostname(name)
    _loopback(up=True)  # a new network's is down
    signal.signal(_SILENCE, lambda *_: _loopback(up=False))
    signal.signal(_HEAR, lambda *_: _loopback(up=True))
    for wire in wires:
        port, path = wire.split("=", 1)
        listener = socket.create_server(("127.0.0.1", int(port)))
        reach = to_path(Path(path))
        _serve(listener, lambda one, reach=reach: _couple(one, reach(), lambda: None))
    main = subprocess.Popen(arguments[arguments.index("--") + 1 :])
    while True:  # the first process of a machine buries its orphans
        process, status = os.wait()
        if process == main.pid:
            return os.waitstatus_to_exitcode(status)


def _loopback(*, up: bool) -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP if up else 0))


if __name__ == "__main__":
    sys.exit(_inside(sys.argv[1:]))
