"""A demo job that trains for as long as a measurement takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from api.client import Client


def trains(client: Client, *, past: int = 10) -> str:
    """Submit it and wait until it is past that step; returns its id. Cancel it afterwards."""
    spec: dict[str, Any] = yaml.safe_load(Path("examples/demo.yaml").read_text())
    spec["schedule"] = {"steps": 100_000, "evaluate_every": 0, "checkpoint_every": 0}
    job = client.submit(spec)
    for _, kind, data in client.stream(job.id):
        if kind == "progress" and data["step"] >= past:
            break
    return job.id
