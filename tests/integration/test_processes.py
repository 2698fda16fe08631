"""A job of two processes through the service: shared or spread, and killed in the middle."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest
import torch

from tests.cli.running import Running
from tests.integration.test_service import LONG, wait_for_step

pytestmark = [
    pytest.mark.service,
    pytest.mark.long,  # tests/training/test_processes and test_sharded do it without a service
    pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="two processes on the CPU"),
]


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["whole", "adapter"])
@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_killed_in_the_middle_it_goes_on_to_a_model_on_disk(
    running: Running, sharding: str, lora: dict[str, Any] | None
) -> None:
    spec = running.spec(schedule=LONG | {"steps": 40}, resources={"processes": 2, "sharding": sharding, "threads": 1})
    spec["student"] = spec["student"] | {"lora": lora}
    job = running.client.submit(spec)
    os.kill(wait_for_step(running, job.id, 6), signal.SIGKILL)
    done = running.client.wait(job.id, timeout_s=240)
    assert done.status == "succeeded", done.error
    assert (done.attempt, done.progress.step) == (2, 40)
    assert running.client.metrics(job.id).steps == list(range(41))
    assert (running.run_directory(job.id) / "student" / "model.safetensors").exists()
    assert running.client.report(job.id).versions["processes"] == 2
