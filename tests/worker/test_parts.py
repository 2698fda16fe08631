"""The worker's small parts: redaction, the bounded log, the slot, threads, and what the package imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from worker.bounded_log import BoundedLog
from worker.redact import redact
from worker.slot import Slot
from worker.trainer_process import trainer_threads


@pytest.mark.parametrize(
    ("text", "leak"),
    [
        ("key=abcd-efgh-ijkl", "abcd-efgh-ijkl"),
        ("redis://user:s3cret@host:6379/0", "s3cret"),
        ("Authorization: Bearer abcdefgh12345", "abcdefgh12345"),
        ("logged in with hf_AbCdEfGhIjKl", "hf_AbCdEfGhIjKl"),
    ],
)
def test_secrets_are_taken_out(text: str, leak: str) -> None:
    cleaned = redact(text, {"SOME_API_KEY": "abcd-efgh-ijkl", "PATH": "host"})
    assert leak not in cleaned
    assert "[redacted]" in cleaned


def test_ordinary_text_stays() -> None:
    text = "step 3 of 10 on host: loss 0.5, https://example.org/a@b"
    assert redact(text, {"DEBUG_TOKEN": "1", "PATH": "host"}) == text


def test_log_keeps_beginning_and_end() -> None:
    log = BoundedLog(head=30, tail=30)
    for number in range(100):
        log.write(b"line %04d\n" % number)
    lines = log.text().splitlines()
    assert lines[:3] == ["line 0000", "line 0001", "line 0002"]
    assert lines[-3:] == ["line 0097", "line 0098", "line 0099"]
    assert "94 lines left out" in lines[3]
    assert log.last_lines(2) == "line 0098\nline 0099"


def test_log_survives_one_endless_line() -> None:
    log = BoundedLog(head=30, tail=30)
    log.write(b"x" * 10_000)
    assert log.text() == "x" * 30


def test_slot_speaks_across_a_fork() -> None:
    slot = Slot()
    child = os.fork()
    if child == 0:
        slot._show("job_1")
        os._exit(0 if not slot.draining() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert slot.job() == "job_1"
    slot.drain()
    assert slot.draining()
    with slot.occupied_by("job_2"):
        assert slot.job() == "job_2"
    assert slot.job() is None


def test_threads() -> None:
    assert trainer_threads(3) == 3
    assert trainer_threads(3, fallback=5) == 3
    assert trainer_threads("auto", fallback=5) == 5
    assert trainer_threads("auto", fallback=5, processes=2) == 2
    assert trainer_threads(3, processes=2) == 3
    assert trainer_threads("auto") >= 1


def test_worker_never_imports_torch() -> None:
    program = "import sys, worker.app, worker.tasks; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
