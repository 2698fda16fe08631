"""What a step says of memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from opd_core.training.memory import memory
from opd_core.training.run import train


def test_what_is_held_is_counted_in_gib_and_given_back_when_it_is_freed() -> None:
    before = memory(torch.device("cpu"))["memory_gib"]
    held = torch.ones(2**26)  # a quarter of a GiB
    during = memory(torch.device("cpu"))["memory_gib"]
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert during == pytest.approx(int(status["VmRSS"].split()[0]) / 2**20, abs=0.02)
    assert during - before == pytest.approx(0.25, abs=0.05)
    del held
    assert memory(torch.device("cpu"))["memory_gib"] == pytest.approx(before, abs=0.05)


def test_a_cuda_device_tells_the_most_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    most = [3 * 2**30]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: most[-1])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: most.append(2**29))
    assert [memory(torch.device("cuda"))["gpu_memory_gib"] for _ in range(2)] == [3.0, 0.5]
    assert "gpu_memory_gib" not in memory(torch.device("cpu"))


def test_every_step_says_it(tiny_spec, tmp_path) -> None:
    said: list[dict] = []
    train(tiny_spec(schedule={"steps": 2, "evaluate_every": 0, "checkpoint_every": 0}), tmp_path, emit=said.append)
    steps = [m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0]
    assert [0.05 < values["memory_gib"] < 64 for values in steps] == [True, True]
