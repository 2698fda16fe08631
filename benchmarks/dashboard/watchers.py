"""Many open dashboards and one training job: what a training step takes with them and without, in turns.

The browser draws the pages on the very cores that train, which a viewer's own machine does elsewhere: what the
dashboards cost the service alone is ``server_share`` and what the step loses is an upper bound.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from playwright.sync_api import Browser, BrowserContext

from benchmarks.dashboard.browser import VIEW, chromium, processor_s
from benchmarks.dashboard.demo_job import trains
from benchmarks.stack import Stack

WATCHERS = 20
_PATHS = ("overview", "tokens", "returns", "routing")


def measure(stack: Stack, short: bool) -> dict[str, Any]:
    """Median seconds per step of every block, their medians, and the ratio."""
    watchers, blocks, steps = (4, 1, 5) if short else (WATCHERS, 3, 30)
    job_id = trains(stack.client)
    spans: list[tuple[bool, int, int, float]] = []
    with chromium() as browser:
        for block in range(2 * blocks):
            watched = block % 2 == 1
            context = _watching(browser, stack, job_id, watchers) if watched else None
            first, before, began = _step(stack, job_id), processor_s("streamlit run"), time.perf_counter()
            while (last := _step(stack, job_id)) < first + steps:
                time.sleep(1)
            share = (processor_s("streamlit run") - before) / (time.perf_counter() - began)
            spans.append((watched, first, last, round(share, 3)))
            if context is not None:
                context.close()
                time.sleep(5)  # the server ends the sessions
    stack.client.cancel(job_id)
    clock = _clock(stack, job_id)
    medians: dict[bool, list[float]] = {True: [], False: []}
    for watched, first, last, _ in spans:
        seconds = [clock[i] - clock[i - 1] for i in range(first + 1, last + 1)]
        medians[watched].append(round(statistics.median(seconds), 4))
    with_them, without = (statistics.median(medians[watched]) for watched in (True, False))
    return {
        "dashboards": watchers,
        "steps_per_block": steps,
        "step_s_with": medians[True],
        "step_s_without": medians[False],
        "ratio": round(with_them / without, 3),
        "server_share_with": [share for watched, *_, share in spans if watched],
    }


def _watching(browser: Browser, stack: Stack, job_id: str, watchers: int) -> BrowserContext:
    """That many pages of the run, drawn."""
    context = browser.new_context(viewport=VIEW)
    context.set_default_timeout(240_000)
    for i in range(watchers):
        page = context.new_page()
        page.goto(f"{stack.dashboard_url}/{_PATHS[i % len(_PATHS)]}?job={job_id}")
        page.locator("canvas, .st-key-strip .token").first.wait_for()
    return context


def _step(stack: Stack, job_id: str) -> int:
    return stack.client.job(job_id).progress.step or 0


def _clock(stack: Stack, job_id: str) -> dict[int, float]:
    """Step -> seconds of training by its end."""
    found = stack.client.metrics(job_id, keys=["wall_s"])
    seconds = zip(found.steps, found.series["wall_s"], strict=True)
    return {step: 0.0 if value is None else value for step, value in seconds}
