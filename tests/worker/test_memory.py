"""The kernel's count of kills for memory, in both versions of control groups and on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.memory import oom_kills

V2 = ("0::/jobs/one\n", "jobs/one/memory.events", "low 0\noom 3\noom_kill 2\n")
V1 = ("4:cpu:/x\n6:memory:/jobs\n0::/\n", "memory/jobs/memory.oom_control", "under_oom 0\noom_kill 2\n")
CONTAINER = ("0::/outside/this/mount\n", "memory.events", "oom_kill 2\n")
NO_COUNT = ("6:memory:/jobs\n", "memory/jobs/memory.oom_control", "under_oom 0\n")


@pytest.mark.parametrize(("membership", "file", "content"), [V2, V1, CONTAINER])
def test_the_count_is_that_of_our_group(tmp_path: Path, membership: str, file: str, content: str) -> None:
    counter = tmp_path / "mount" / file
    counter.parent.mkdir(parents=True)
    counter.write_text(content)
    (tmp_path / "membership").write_text(membership)
    assert oom_kills(tmp_path / "membership", tmp_path / "mount") == 2


def test_where_the_kernel_does_not_say_nobody_guesses(tmp_path: Path) -> None:
    assert oom_kills(tmp_path / "nothing", tmp_path) is None
    membership, file, content = NO_COUNT
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    (tmp_path / "membership").write_text(membership)
    assert oom_kills(tmp_path / "membership", tmp_path) is None
