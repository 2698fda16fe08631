"""A new step every second: does the page keep up, and what does it cost?"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

from benchmarks.dashboard.browser import VIEW, chromium, processor_s
from benchmarks.large_run import LargeRun, profile_rows, sequence
from benchmarks.stack import Stack
from opd_core.runs import profiles, records
from opd_core.runs.live import LiveWriter

TOKENS = 4096
_POLL_MS = 50
# The page, what it must have drawn before the clock starts, and how to read which step it shows.
_PAGES: dict[str, tuple[str, Callable[[Page], str], str]] = {
    "tokens": (
        ".st-key-strip .token",
        lambda page: page.locator(".st-key-strip .strip").get_attribute("data-place") or "",
        r"/(\d+)/\d+$",
    ),
    # Not innerText: it would have the page laid out twenty times a second.
    "returns": (
        "canvas",
        lambda page: page.evaluate("document.querySelector('[data-testid=stMain]').textContent"),
        r"Distribution at step (\d+)",
    ),
}


def measure(stack: Stack, short: bool) -> dict[str, Any]:
    """Per page: shares of one core, steps shown, seconds from publishing a step to its sight."""
    seconds = 8 if short else 60
    run, live = LargeRun(stack.settings), LiveWriter(stack.settings.redis_url)
    run.add_profiles(1, 200)
    found: dict[str, Any] = {"tokens_in_the_strip": TOKENS, "seconds": seconds}
    try:
        with chromium() as browser:
            page = browser.new_page(viewport=VIEW)
            page.set_default_timeout(120_000)
            step = 200
            for name, (drawn, read, says) in _PAGES.items():
                step += 1
                # Made before the clock starts: the publisher is no part of what is measured.
                parcels = {number: _parcel(number) for number in range(step, step + seconds + 2)}
                live.publish_records(run.id, step, 1, *parcels[step])
                page.goto(f"{stack.dashboard_url}/{name}?job={run.id}")
                page.locator(drawn).first.wait_for()
                page.wait_for_timeout(3000)
                found[name] = _watched(page, read, says, live, run.id, step, seconds, parcels)
                step += seconds
    finally:
        live.close()
        run.store.request_cancel(run.id)
    return found


def _watched(
    page: Page,
    read: Callable[[Page], str],
    says: str,
    live: LiveWriter,
    job_id: str,
    step: int,
    seconds: int,
    parcels: dict[int, tuple[bytes, bytes]],
) -> dict[str, Any]:
    published: dict[int, float] = {}
    shown: dict[int, float] = {}
    before = [processor_s(part) for part in ("--type=renderer", "streamlit run")]
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        if now >= began + len(published):
            step += 1
            live.publish_records(job_id, step, 1, *parcels[step])
            published[step] = time.perf_counter()
        if match := re.search(says, read(page)):
            shown.setdefault(int(match[1]), time.perf_counter())
        page.wait_for_timeout(_POLL_MS)
    wall = time.perf_counter() - began
    spent = [processor_s(part) for part in ("--type=renderer", "streamlit run")]
    delays = [round(shown[one] - at, 2) for one, at in published.items() if one in shown]
    return {
        "renderer_share": round((spent[0] - before[0]) / wall, 3),
        "server_share": round((spent[1] - before[1]) / wall, 3),
        "steps_published": len(published),
        "steps_shown": len(delays),
        "step_to_sight_s": {"median": statistics.median(delays), "max": max(delays)} if delays else None,
    }


def _parcel(step: int) -> tuple[bytes, bytes]:
    return records.encode([sequence(step, 0, TOKENS, 4)]), profiles.encode(profile_rows(step))
