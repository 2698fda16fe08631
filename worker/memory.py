"""Whether the kernel has killed for memory in this process's control group: how an OOM kill gets its name.

The kernel counts such kills per memory control group (version 2: ``memory.events``, version 1: ``memory.oom_control``).
A trainer that dies of SIGKILL while the count rises was killed for memory; without a count nobody can tell.
"""

from __future__ import annotations

from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def oom_kills(membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> int | None:
    """How often it has happened in this group so far; None where the kernel does not say."""
    for file in _counters(membership, mount):
        for line in file.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None


def _counters(membership: Path, mount: Path) -> list[Path]:
    if not membership.exists():  # not Linux
        return []
    found = []
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, name = mount, "memory.events"
        elif "memory" in controllers.split(","):
            base, name = mount / "memory", "memory.oom_control"
        else:
            continue
        # Inside a container the mount may begin at the group itself.
        found += [base / group.lstrip("/") / name, base / name]
    return [file for file in found if file.is_file()]
