"""From the click to the page's first content, while a job trains on the same cores."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.dashboard.browser import VIEW, chromium
from benchmarks.dashboard.demo_job import trains
from benchmarks.stack import Stack

_PAGES = {
    "Tokens": ".st-key-strip .token",
    "Returns": "canvas",
    "Gates": "[data-testid=stAlert], canvas",
    "Routing": "canvas",
    "What if": "button:has-text('Plan again')",
    "Probe": "textarea",
    "Overview": "canvas",
}


def measure(stack: Stack, short: bool) -> dict[str, Any]:
    """Per page, in seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in _PAGES}
    job_id = trains(stack.client)
    with chromium() as browser:
        page = browser.new_page(viewport=VIEW)
        page.set_default_timeout(120_000)
        page.goto(f"{stack.dashboard_url}/overview?job={job_id}")
        page.locator("canvas").first.wait_for()
        for _ in range(1 if short else 5):
            for name, drawn in _PAGES.items():
                page.wait_for_timeout(1000)
                started = time.perf_counter()
                page.get_by_role("link", name=name, exact=True).first.click()
                page.wait_for_url(f"**/{name.lower().replace(' ', '_')}?*")
                page.locator(drawn).first.wait_for()
                seconds[name].append(round(time.perf_counter() - started, 2))
    stack.client.cancel(job_id)
    return {
        "rounds": len(seconds["Overview"]),
        "pages_s": {name: {"median": statistics.median(one), "max": max(one)} for name, one in seconds.items()},
    }
