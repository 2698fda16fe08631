"""Answers that are programs: right if the problem's unit tests pass in a sandbox.

The sandbox is bubblewrap's: no network, no files but the interpreter's, no other processes in sight, a few megabytes of
scratch space, limits on time and memory. It runs what a model wrote, so the operator has to allow it (OPD_RUN_CODE).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from opd_core.runs.settings import Settings
from opd_core.spec import UserError

_SECONDS = 10.0
_SCRATCH = 2**24
_LIMITS = {"RLIMIT_CPU": 5, "RLIMIT_AS": 2**29, "RLIMIT_FSIZE": _SCRATCH, "RLIMIT_CORE": 0}
# Not that of a virtual environment: programs see the standard library and nothing else.
_PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
# It limits itself before it reads what the model wrote, for good: setting limits between fork and exec would copy the
# trainer's page tables for each program, and is not safe beside threads.
# The word is said only after code and tests have run to their end: a program that leaves early passes nothing.
_DRIVER = """
import json, os, resource, sys
for name, most in json.loads(sys.argv[1]).items():
    resource.setrlimit(getattr(resource, name), (most, most))
given = json.load(sys.stdin)
out = os.dup(1)
null = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(null, stream)
word, tests, scope = given.pop("word"), given.pop("tests"), {"__name__": "solution"}
exec(compile(given["code"], "solution.py", "exec"), scope)
exec(compile(tests, "tests.py", "exec"), scope)
os.write(out, word.encode())
"""


def unit_tests_pass(completion: str, tests: str) -> bool:
    """Whether ``tests`` (Python that raises where something is wrong) run through after the completion's program.

    It waits for a process, and may be called from several threads. The process dies with the thread that called.

    The program is the completion's last fenced block, or all of it where there is none. Whoever tries hard enough can
    still write a program that finds the word it has to say: rewards are worth what the tests are worth.
    """
    blocks = _FENCE.findall(completion)
    word = secrets.token_hex(16)
    given = {"code": blocks[-1] if blocks else completion, "tests": tests, "word": word}
    return _run(given).stdout == word


def check_sandbox() -> None:
    """Raise UserError where programs must not or cannot be run here."""
    param = "task.verifier.kind"
    if not Settings().run_code:
        raise UserError(
            f"{param}: 'unit_tests' runs programs that the model wrote; this service does not allow it "
            "(its operator can, with OPD_RUN_CODE=true)",
            param=param,
            code="not_allowed",
        )
    if shutil.which("bwrap") is None:
        raise UserError(
            f"{param}: 'unit_tests' needs bubblewrap on the worker (apt install bubblewrap)",
            param=param,
            code="no_sandbox",
        )
    done = _run({"code": "one = 1", "tests": "assert one == 1", "word": "sound"})
    if done.stdout != "sound":
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
        raise UserError(
            f"{param}: the sandbox of 'unit_tests' does not work on this worker ({reason})",
            param=param,
            code="no_sandbox",
        )


def _run(given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [*_sandbox(), _PYTHON, "-I", "-c", _DRIVER, json.dumps(_LIMITS)]
    try:
        return subprocess.run(
            command,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, returncode=124, stdout="", stderr=f"longer than {_SECONDS:g} s")


def _sandbox() -> list[str]:
    folders = dict.fromkeys(["/usr", "/lib", "/lib64", "/bin", os.path.realpath(sys.base_prefix)])
    shown = [word for folder in folders if Path(folder).is_dir() for word in ("--ro-bind", folder, folder)]
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--uid", "65534", "--gid", "65534"),
        *("--clearenv", *shown, "--proc", "/proc", "--dev", "/dev"),
        *("--size", str(_SCRATCH), "--tmpfs", "/tmp", "--chdir", "/tmp", "--"),  # noqa: S108  (inside the sandbox)
    ]
