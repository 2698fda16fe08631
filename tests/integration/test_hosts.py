"""The machines of the tests (tests/hosts.py) leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.hosts import possible

OWNER = """
import os, sys
from pathlib import Path
from tests.hosts import Host
folder = Path(sys.argv[1])
inside = "import subprocess, sys; subprocess.Popen(['sleep', sys.argv[1]]); subprocess.run(['sleep', sys.argv[1]])"
Host("north", [sys.executable, "-c", inside, sys.argv[2]], os.environ, {}, folder / "log")
print(flush=True)
sys.stdin.read()
"""


def _with(word: str) -> list[str]:
    """Command lines of processes that were given this word."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if word in line:
            found.append(line)
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_machine_goes_with_whoever_started_it(end: signal.Signals, tmp_path: Path) -> None:
    if not possible():
        pytest.skip("no namespaces of our own on this machine")
    word = f"{600 + uuid.uuid4().int % 1000}.{uuid.uuid4().int % 10**12:012}"  # seconds to sleep, and a name
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), word],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert owner.stdout
        owner.stdout.readline()
        while sum(line.startswith("sleep") for line in _with(word)) < 2:
            assert owner.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
        owner.send_signal(end)
        owner.wait()
        deadline = time.monotonic() + 30
        while (left := _with(word)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left
    finally:
        owner.kill()
