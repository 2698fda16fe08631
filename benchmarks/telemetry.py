"""What recording costs: the same demo steps with telemetry on and off, interleaved, as a ratio.

    python -m benchmarks.telemetry [--steps 30] [--rounds 5]

Step time is the time between progress messages, so encoding and writing the records counts. The message pipe's other
end (supervisor and broker) runs in other processes of the service and is not in this figure.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import describe_machine, keep
from opd_core.spec import JobSpec
from opd_core.training.process import importing

with importing():  # as the process of a job does
    from opd_core.training.run import train

_WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    machine = describe_machine()

    medians: dict[str, list[float]] = {"on": [], "off": []}
    for round_number in range(arguments.rounds):
        for name in ("on", "off") if round_number % 2 == 0 else ("off", "on"):
            medians[name].append(statistics.median(_step_times(arguments.steps, recording=name == "on")))
            print(f"round {round_number + 1}, telemetry {name}: {medians[name][-1] * 1e3:.1f} ms a step", flush=True)
    ratios = [on / off for on, off in zip(medians["on"], medians["off"], strict=True)]
    figures = {
        "step_s_on": medians["on"],
        "step_s_off": medians["off"],
        "ratio_by_round": ratios,
        "ratio_median": statistics.median(ratios),
        "settings": "demo job, 8 sequences a step, top 8, 32 probe states",
    }
    print(f"on / off: {figures['ratio_median']:.3f} (median of {arguments.rounds} rounds, {ratios})")
    keep("telemetry", "python -m benchmarks.telemetry", figures, machine)


def _step_times(steps: int, *, recording: bool) -> list[float]:
    spec: dict[str, Any] = yaml.safe_load(Path("examples/demo.yaml").read_text())
    spec["schedule"] = {"steps": steps, "evaluate_every": 0, "checkpoint_every": 0}
    if not recording:
        spec["telemetry"] = {"sequences_per_step": 0}
    times: list[float] = []

    def listen(message: dict[str, Any]) -> None:
        if message["type"] == "progress":
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(JobSpec.model_validate(spec), Path(folder) / "out", emit=listen)
    # The last step also evaluates and saves.
    return [after - before for before, after in zip(times[_WARM_UP:-2], times[_WARM_UP + 1 : -1], strict=True)]


if __name__ == "__main__":
    main()
