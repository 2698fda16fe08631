"""How a process of a job starts and ends, in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from opd_core.training import process
from worker import supervisor


def _run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import gc, os, sys\nfrom opd_core.training.process import *\n{program}"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_messages_come_out_of_the_channel_and_at_once() -> None:
    done = _run(
        "emit = message_channel()\nprint('stray', flush=True)\nos.system('echo stray too')\n"
        "emit({'type': 'phase', 'phase': 'a'})\nemit({'type': 'phase', 'phase': 'b\\ud800'})\nos._exit(0)"
    )
    assert done.stdout.splitlines() == ['{"type": "phase", "phase": "a"}', '{"type": "phase", "phase": "b\\ud800"}']
    assert done.stderr.splitlines() == ["stray", "stray too"]


def test_a_number_that_json_has_not_is_no_message() -> None:
    done = _run("message_channel()({'value': float('nan')})")
    assert (done.returncode, done.stdout) == (1, "")


def test_imports_are_not_searched_for_garbage_and_what_comes_after_is() -> None:
    program = """
before = gc.get_freeze_count()
try:
    with importing():
        inside = gc.isenabled()
        raise ImportError
except ImportError:
    print(inside, gc.isenabled(), gc.get_freeze_count() > before)
"""
    assert _run(program).stdout.split() == ["False", "True", "True"]


def test_it_leaves_with_its_exit_code_and_without_a_last_search() -> None:
    program = """
class Loop:
    def __del__(self):
        print("found")
one = Loop()
one.itself = one
del one
leave(75)
"""
    done = _run(program)
    assert (done.returncode, done.stdout) == (75, "")


def test_a_process_whose_parent_is_gone_already_does_not_start() -> None:
    done = _run("die_with_parent()\nprint('on')", OPD_SUPERVISOR_PID="1")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (1, "", "the supervisor is gone")
    assert _run("die_with_parent()\nprint('on')", OPD_SUPERVISOR_PID=str(os.getpid())).stdout == "on\n"


def test_it_dies_with_its_parent_however_that_ends() -> None:
    program = "from opd_core.training.process import *; die_with_parent(); print(); import time; time.sleep(600)"
    parent = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {program!r}], stdout=subprocess.PIPE,
                         env={{**os.environ, "OPD_SUPERVISOR_PID": str(os.getpid())}})
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    done = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, check=False)
    pid = int(done.stdout)
    child, deadline = Path(f"/proc/{pid}/status"), time.monotonic() + 30
    while child.exists() and "(zombie)" not in child.read_text():
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("it lived on")
        time.sleep(0.02)


def test_the_supervisor_reads_the_same_exit_codes() -> None:
    assert (supervisor.EXIT_USER_ERROR, supervisor.EXIT_STOPPED) == (process.EXIT_USER_ERROR, process.EXIT_STOPPED)
