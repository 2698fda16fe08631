"""Right or wrong for a whole batch: in its order, side by side where each verdict waits for a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from opd_core.tasks import Problem, Task
from opd_core.training.evaluation import verify

AT_ONCE = 3


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(AT_ONCE)
    yield
    torch.set_num_threads(before)


def problems(*answers):
    return [Problem(id=number, prompt="", answer=answer) for number, answer in enumerate(answers)]


def task(verify, *, waits):
    ways = {name: lambda *_: [] for name in ("encode", "read", "imitate")}
    return Task(name="t", train=(), eval=(), verify=verify, waits=waits, **ways)


def test_verdicts_that_wait_are_waited_for_together_and_come_in_order(three_threads) -> None:
    together = threading.Barrier(AT_ONCE, timeout=60)
    running, most = [0], [0]

    def slow(text: str, answer: str) -> bool:
        running[0] += 1
        most[0] = max(most[0], running[0])
        together.wait()  # opens for three at a time, and for none that is alone
        running[0] -= 1
        return text == answer

    texts = [str(number) for number in range(4 * AT_ONCE)]
    answers = [text if int(text) % 2 else "x" for text in texts]
    found = verify(task(slow, waits=True), problems(*answers), texts)
    assert found == [bool(int(text) % 2) for text in texts]
    assert most[0] == AT_ONCE


def test_what_has_no_answer_has_no_verdict(three_threads) -> None:
    right = task(lambda text, answer: text == answer, waits=True)
    assert verify(right, problems("a", None, "c"), ["a", "b", "d"]) == [True, None, False]
    assert verify(task(None, waits=True), problems("a"), ["a"]) == [None]


def test_other_verdicts_are_given_where_signals_are_heard(three_threads) -> None:
    """math-verify sets an alarm, which only the main thread may do."""
    here = threading.current_thread()
    found = verify(task(lambda *_: threading.current_thread() is here, waits=False), problems(*"abcd"), [""] * 4)
    assert found == [True] * 4


def test_an_error_in_one_verdict_is_the_error_of_all(three_threads) -> None:
    def broken(text: str, _: str) -> bool:
        raise OSError(text)

    with pytest.raises(OSError, match="0"):
        verify(task(broken, waits=True), problems(*"abcdef"), ["0"] * 6)


TRAINER = f"""
import torch
from opd_core.spec import Verifier
from opd_core.tasks.verifiers import make_verifier
from tests.training.test_verify import problems, task, verify
torch.set_num_threads({AT_ONCE})
try:
    right = make_verifier(Verifier(kind="unit_tests"))
except ValueError as error:
    print(f"no sandbox: {{error}}", flush=True)
    raise SystemExit
print(flush=True)
verify(task(right, waits=True), problems(*["import time; time.sleep(9)"] * 6), [""] * 6)
"""


def _below(pid: int) -> set[int]:
    """The process's descendants."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child} | _below(child)
    return found


def _runs_a_program(pid: int) -> bool:
    line = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"bwrap" not in line and b"RLIMIT_CPU" in line


def test_no_program_outlives_a_killed_trainer() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    root = Path(__file__).parents[2]
    environment = os.environ | {"OPD_RUN_CODE": "true", "PYTHONPATH": str(root)}
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert trainer.stdout
        if said := trainer.stdout.readline().strip():
            pytest.skip(said)
        while True:  # until as many programs run as may: one after the other, there would never be three
            try:
                below = _below(trainer.pid)
                if sum(map(_runs_a_program, below)) == AT_ONCE:
                    break
            except OSError:  # one has just ended
                pass
            assert trainer.poll() is None, "the trainer ended before three programs ran at a time"
            time.sleep(0.02)
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        deadline = time.monotonic() + 5  # before they would end by themselves
        while (left := [pid for pid in below if _lives(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left
    finally:
        trainer.kill()


def _lives(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
