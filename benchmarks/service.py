"""How quick the service feels: from POST to the first training step, and from the worker to the browser.

    python -m benchmarks.service [--rounds 5]

The service is warm (everything started, one job has run). ``post_to_first_step_s``: from sending the POST to the
progress event of step 1 arriving over the live stream. ``worker_to_browser_s``: from the moment the worker publishes a
step (the time in the stream's own ids) to the moment a browser that has the run's page open shows it; sampled every
50 ms while a job runs.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from api.client import Client
from benchmarks.machine import describe_machine, keep
from benchmarks.stack import running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    machine = describe_machine()
    with running(dashboard=True) as stack:
        _first_step(stack.client)  # warm
        starts = [_first_step(stack.client) for _ in range(arguments.rounds)]
        delays = _browser_delays(stack.client, stack.dashboard_url)
    figures: dict[str, Any] = {
        "post_to_first_step_s": {"rounds": starts, "median": statistics.median(starts), "max": max(starts)},
        "worker_to_browser_s": delays,
    }
    print(figures)
    keep("service", "python -m benchmarks.service", figures, machine)


def _spec(steps: int) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(Path("examples/demo.yaml").read_text())
    spec["schedule"] = {"steps": steps, "evaluate_every": 0, "checkpoint_every": 0}
    return spec


def _first_step(client: Client) -> float:
    started = time.perf_counter()
    job = client.submit(_spec(2))
    for _, kind, _data in client.stream(job.id):
        if kind == "progress":
            seconds = time.perf_counter() - started
            break
    client.wait(job.id)
    return round(seconds, 2)


def _browser_delays(client: Client, dashboard: str) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        return {"skipped": "no chromium"}
    job = client.submit(_spec(60))
    published: dict[int, float] = {}

    def listen() -> None:
        for identity, kind, data in client.stream(job.id):
            if kind == "progress":
                published[int(data["step"])] = int(str(identity).split("-")[0]) / 1000

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    shown: dict[int, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{dashboard}/?job={job.id}")
        while client.job(job.id).finished_at is None:
            match = re.search(r"[Ss]tep (\d+) (?:of|/)", page.inner_text("body"))
            if match:
                shown.setdefault(int(match[1]), time.time())
            page.wait_for_timeout(50)
        browser.close()
    listener.join(timeout=10)
    delays = [round(shown[step] - published[step], 3) for step in shown if step in published and step > 1]
    if not delays:
        return {"skipped": "the page showed no step while the job ran"}
    return {"steps_seen": len(delays), "median": statistics.median(delays), "max": max(delays)}


if __name__ == "__main__":
    main()
