"""Many open dashboards and one training job: what a training step takes with them and without, within one run.

The viewers draw nothing (``viewers``): a browser that draws does so on its viewer's machine.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.dashboard.browser import processor_s, resident_mib
from benchmarks.dashboard.demo_job import trains
from benchmarks.dashboard.viewers import Viewer, watching
from benchmarks.stack import Stack

WATCHERS = 20
_PATHS = ("overview", "tokens", "returns", "routing")


def measure(stack: Stack, short: bool) -> dict[str, Any]:
    """Median seconds per step with the viewers, without them before and after, and the ratio."""
    watchers, steps = (4, 5) if short else (WATCHERS, 60)
    job_id = trains(stack.client)
    urls = [f"{stack.dashboard_url}/{_PATHS[i % len(_PATHS)]}?job={job_id}" for i in range(watchers)]
    before = _pass(stack, job_id, steps)
    with watching(urls) as viewers:
        refreshed, spent, began = _refreshes(viewers), processor_s("streamlit run"), time.perf_counter()
        held = [resident_mib("streamlit run")]
        during = _pass(stack, job_id, 2 * steps)
        held.append(resident_mib("streamlit run"))
        seconds = time.perf_counter() - began
        share, rate = (processor_s("streamlit run") - spent) / seconds, (_refreshes(viewers) - refreshed) / seconds
    time.sleep(5)  # the server ends the sessions
    after = _pass(stack, job_id, steps)
    stack.client.cancel(job_id)
    clock = _clock(stack, job_id)

    def step_s(first: int, last: int) -> float:
        return statistics.median(clock[i] - clock[i - 1] for i in range(first + 1, last + 1))

    without = [step_s(*before), step_s(*after)]
    return {
        "dashboards": watchers,
        "steps": {"without, before": steps, "with": 2 * steps, "without, after": steps},
        "step_s_without": [round(one, 4) for one in without],
        "step_s_with": round(step_s(*during), 4),
        "ratio": round(step_s(*during) / statistics.mean(without), 3),
        "dashboard_server_share_of_a_core": round(share, 3),
        "refreshes_per_s": round(rate, 1),
        "dashboard_server_mib": [round(one) for one in held],
    }


def _refreshes(viewers: list[Viewer]) -> int:
    return sum(viewer.refreshes for viewer in viewers)


def _pass(stack: Stack, job_id: str, steps: int) -> tuple[int, int]:
    """Wait for that many steps; returns the first and the last."""
    first = _step(stack, job_id)
    while (last := _step(stack, job_id)) < first + steps:
        time.sleep(1)
    return first, last


def _step(stack: Stack, job_id: str) -> int:
    return stack.client.job(job_id).progress.step or 0


def _clock(stack: Stack, job_id: str) -> dict[int, float]:
    """Step -> seconds of training by its end."""
    found = stack.client.metrics(job_id, keys=["wall_s"])
    seconds = zip(found.steps, found.series["wall_s"], strict=True)
    return {step: 0.0 if value is None else value for step, value in seconds}
