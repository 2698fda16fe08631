"""A run of 1,000 steps with 100,000 recorded tokens each, served in slices."""

from __future__ import annotations

import time
from typing import Any

import httpx

from benchmarks.large_run import LargeRun
from benchmarks.stack import Stack

SEQUENCES, LENGTH, TOP_K = 50, 2000, 4
_ROUNDS = 3


def measure(stack: Stack, short: bool) -> dict[str, Any]:
    """Seconds (first answer and median of three more) and bytes of what the pages ask for."""
    steps = 12 if short else 1000
    started = time.perf_counter()
    run = LargeRun(stack.settings)
    run.add_profiles(1, steps)
    run.add_records(1, steps, sequences=SEQUENCES, length=LENGTH, top_k=TOP_K)
    written = time.perf_counter() - started
    sizes = [run.files.size(f"records/{name}") for name in run.files.list("records")]
    newest = max(1, steps - 99)
    asked = {
        "list of steps": "steps",
        "sequences of a step": f"steps/{steps}/sequences",
        "one sequence": f"steps/{steps}/sequences/7",
        "numbers of a step": f"steps/{steps}/quantities",
        "returns, all steps": "heatmaps/returns?field=kl&rows=64&columns=64",
        "returns, one step": f"heatmaps/returns?field=kl&from_step={steps}&to_step={steps}",
        "gates, newest 100 steps": f"heatmaps/gates?from_step={newest}&to_step={steps}&rows=64&columns=64",
        "routing, newest 100 steps": f"heatmaps/routing?from_step={newest}&to_step={steps}&rows=16&columns=16",
        "routing, all steps": "heatmaps/routing?rows=64&columns=64",
    }
    headers = {"Authorization": f"Bearer {stack.settings.token()}"}
    with httpx.Client(base_url=stack.client.url, headers=headers, timeout=600) as http:
        answers = {name: _asked(http, f"/v1/jobs/{run.id}/{path}") for name, path in asked.items()}
    run.store.request_cancel(run.id)
    return {
        "steps": steps,
        "tokens_per_step": SEQUENCES * LENGTH,
        "gib_on_disk": round(sum(sizes) / 2**30, 2),
        "written_in_s": round(written),
        "answers": answers,
    }


def _asked(http: httpx.Client, path: str) -> dict[str, Any]:
    seconds, size = [], 0
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        answer = http.get(path).raise_for_status()
        seconds.append(round(time.perf_counter() - started, 3))
        size = len(answer.content)
    return {"first_s": seconds[0], "again_s": sorted(seconds[1:])[_ROUNDS // 2], "bytes": size}
