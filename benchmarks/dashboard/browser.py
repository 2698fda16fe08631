"""A headless Chromium, and what processes of this measurement spend."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

VIEW = {"width": 1440, "height": 1000}
_TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's Chromium; ends the program where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        sys.exit("no chromium on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def processor_s(part: str) -> float:
    """Seconds of processor time so far of our processes whose command line contains this."""
    return sum(_spent(process) for process in _below(os.getpid()) if part in _command(process))


def resident_mib(part: str) -> float:
    """Memory that they hold now."""
    pages = sum(int(fields[21]) for one in _below(os.getpid()) if part in _command(one) and (fields := _stat(one)))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _below(root: int) -> list[int]:
    """Every process that this one has started, itself or through others."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and (fields := _stat(int(directory.name))):
            children.setdefault(int(fields[1]), []).append(int(directory.name))
    found, waiting = [], [root]
    while waiting:
        started = children.get(waiting.pop(), [])
        found += started
        waiting += started
    return found


def _spent(process: int) -> float:
    fields = _stat(process)
    return (int(fields[11]) + int(fields[12])) / _TICK if fields else 0.0


def _stat(process: int) -> list[str]:
    """The fields behind the name in /proc/PID/stat; [] once it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
