"""A trainer changes no file while its supervisor's lease is not current."""

import threading
import time

import pytest

from opd_core.runs.artifacts import RunFiles
from opd_core.runs.deadline import Deadline


@pytest.fixture
def deadline(tmp_path):
    return Deadline(tmp_path / "lease")


def test_a_current_lease_lets_through(deadline):
    deadline.extend(time.monotonic() + 1000)
    deadline.wait()


def test_an_expired_lease_holds_back_until_it_is_renewed(deadline):
    deadline.extend(time.monotonic() - 1)
    through = threading.Event()
    thread = threading.Thread(target=lambda: (deadline.wait(), through.set()), daemon=True)
    thread.start()
    assert not through.wait(0.5)
    deadline.extend(time.monotonic() + 1000)
    thread.join(timeout=30)
    assert through.is_set()


def test_without_a_lease_nothing_is_written(deadline):
    with pytest.raises(FileNotFoundError):
        deadline.wait()


class Closed(Exception):
    pass


def closed():
    raise Closed


def test_every_change_of_a_file_asks_first_and_reading_does_not(tmp_path):
    RunFiles(tmp_path / "run").write_bytes("a", b"x")
    files = RunFiles(tmp_path / "run", closed)
    made = tmp_path / "made"
    made.mkdir()
    (made / "f").write_bytes(b"x")
    for change in (
        lambda: files.write_bytes("a", b"y"),
        lambda: files.write_json("a", {}),
        lambda: files.publish(made, "c", manifest={}),
        lambda: files.remove("a"),
    ):
        with pytest.raises(Closed):
            change()
    assert files.read_bytes("a") == b"x"
    assert files.list() == ["a"]
