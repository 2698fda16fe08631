"""Does the dashboard stay quick? A large run over the API, a busy page in a browser, pages while a job trains.

    python -m benchmarks.dashboard

large_run     seconds per answer for a run of 1,000 steps with 100,000 recorded tokens in each of the steps that are
              looked at (profiles of all steps, records of ``--record-steps`` of them)
busy_pages    a new step every second for 20 s: 4,096 tokens in the strip, a heatmap of 48 x 64; processor time of the
              page's renderer and of the dashboard server as shares of one core, and how many of the steps were shown
page_switch   seconds from the click to the page's first content, while a demo job trains
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Page, sync_playwright

from api.client import Client
from benchmarks.large_run import LargeRun, sequence
from benchmarks.machine import describe_machine, keep
from benchmarks.stack import running
from opd_core.runs import profiles, records
from opd_core.runs.live import LiveWriter
from opd_core.runs.settings import Settings

_TICK = os.sysconf("SC_CLK_TCK")
_SECONDS = 20
_PAGES = {"Tokens": ".st-key-strip .token", "Returns": "canvas", "Gates": "[data-testid=stAlert], canvas",
          "Routing": "canvas", "Overview": "canvas"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record-steps", type=int, default=12)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no chromium on this machine (apt-get install chromium)")
    machine = describe_machine()
    with running(dashboard=True) as stack:
        large = _large_run(stack.client, stack.settings, arguments.record_steps)
        figures: dict[str, Any] = {"large_run": large}
        print(figures, flush=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.set_default_timeout(120_000)
            figures["busy_pages"] = _busy_pages(page, stack.settings, stack.dashboard_url)
            print(figures["busy_pages"], flush=True)
            figures["page_switch"] = _page_switch(page, stack.client, stack.dashboard_url)
            browser.close()
    print(figures["page_switch"])
    keep("dashboard", " ".join(["python -m benchmarks.dashboard", *sys.argv[1:]]), figures, machine)


# -- a large run over the API ----------------------------------------------------------------------------------------


def _large_run(client: Client, settings: Settings, record_steps: int) -> dict[str, Any]:
    run = LargeRun(settings)
    run.add_profiles(1, 1000)
    for step in range(1, record_steps + 1):
        run.add_records(step, sequences=50, length=2000, top_k=8)
    parts = [run.files.size(f"records/{name}") for name in run.files.list("records")]
    asked: dict[str, Callable[[], Any]] = {
        "list of steps": lambda: client.steps(run.id),
        "sequences of a step": lambda: client.sequences(run.id, record_steps),
        "one sequence": lambda: client.sequence(run.id, record_steps, 7),
        "returns over 1,000 steps": lambda: client.returns(run.id, "kl"),
        "gates": lambda: client.gates(run.id),
        "routing": lambda: client.routing(run.id),
    }
    answers = {name: _timed(question) for name, question in asked.items()}
    run.store.request_cancel(run.id)
    return {"bytes_per_token": round(sum(parts) / (record_steps * 100_000), 1), "first_and_again_s": answers}


def _timed(question: Callable[[], Any]) -> list[float]:
    """Seconds of the first answer and of the second."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        question()
        seconds.append(round(time.perf_counter() - started, 3))
    return seconds


# -- a new step every second -----------------------------------------------------------------------------------------


def _busy_pages(page: Page, settings: Settings, dashboard: str) -> dict[str, Any]:
    run = LargeRun(settings)
    live = LiveWriter(settings.redis_url)
    run.add_profiles(1, 200)
    found = {}
    try:
        step = 200
        for name, path, shown in (("tokens", "tokens", ".st-key-strip .token"), ("returns", "returns", "canvas")):
            step = _publish(live, run.id, step + 1)
            page.goto(f"{dashboard}/{path}?job={run.id}")
            page.locator(shown).first.wait_for()
            page.wait_for_timeout(3000)
            renderers, server = _processes("--type=renderer"), _processes("streamlit run")
            before, seen = (_cpu(renderers), _cpu(server)), set[str]()
            began = time.perf_counter()
            while time.perf_counter() - began < _SECONDS:
                step = _publish(live, run.id, step + 1)
                page.wait_for_timeout(1000)
                seen.add(page.locator("[data-testid=stSlider]").first.inner_text())
            wall = time.perf_counter() - began
            spent = (_cpu(renderers) - before[0], _cpu(server) - before[1])
            found[name] = {
                "renderer_share": round(spent[0] / wall, 3),
                "server_share": round(spent[1] / wall, 3),
                "steps_shown": len(seen),
                "ticks": _SECONDS,
            }
    finally:
        live.close()
        run.store.request_cancel(run.id)
    return found


def _publish(live: LiveWriter, job_id: str, step: int) -> int:
    payload = records.encode([sequence(step, 0, 4096, 4)])
    spread = profiles.encode([])
    live.publish_records(job_id, step, 1, payload, spread)
    return step


def _processes(part: str) -> list[int]:
    """Processes whose command line contains this."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            if part in command:
                found.append(int(directory.name))
    return found


def _cpu(processes: list[int]) -> float:
    """Seconds of processor time so far."""
    total = 0
    for process in processes:
        stat = Path(f"/proc/{process}/stat")
        if stat.exists():
            fields = stat.read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICK


# -- pages while a job trains ----------------------------------------------------------------------------------------


def _page_switch(page: Page, client: Client, dashboard: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(Path("examples/demo.yaml").read_text())
    spec["schedule"] = {"steps": 3000, "evaluate_every": 0, "checkpoint_every": 0}
    job = client.submit(spec)
    for _, kind, data in client.stream(job.id):
        if kind == "progress" and data["step"] >= 10:
            break
    page.goto(f"{dashboard}/overview?job={job.id}")
    page.locator("canvas").first.wait_for()
    seconds: dict[str, list[float]] = {name: [] for name in _PAGES}
    for _ in range(3):
        for name, shown in _PAGES.items():
            page.wait_for_timeout(1000)
            started = time.perf_counter()
            page.get_by_role("link", name=name, exact=True).first.click()
            page.wait_for_url(f"**/{name.lower()}?*")
            page.locator(shown).first.wait_for()
            seconds[name].append(round(time.perf_counter() - started, 2))
    client.cancel(job.id)
    return {name: {"median": statistics.median(found), "max": max(found)} for name, found in seconds.items()}


if __name__ == "__main__":
    main()
