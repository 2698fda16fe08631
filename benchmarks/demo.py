"""The demo as a newcomer meets it: ``opd demo --exit`` for each seed, dashboard on and open in a browser.

    python -m benchmarks.demo [--seeds 0 1 2]

The first seed starts from an empty home, so it also builds the demo models; the others find them. Figures: seconds to
build both models, seconds from submission to the end of the job, accuracy before, after and of the teacher.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="opd-bench-") as home:
        runs = [_run(Path(home), seed) for seed in arguments.seeds]
    figures = {"first_use_build_s": runs[0].pop("build_s"), "runs": runs}
    for run in runs:
        run.pop("build_s", None)
        print(run)
    keep("demo", "python -m benchmarks.demo", figures, machine)


def _run(home: Path, seed: int) -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("opd")), "demo", "--exit", "--seed", str(seed)]
    environment = {**os.environ, "OPD_HOME": str(home), "COLUMNS": "200"}
    started = time.perf_counter()
    built = submitted = None
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        with contextlib.ExitStack() as browser:
            for line in process.stdout:
                if built is None and line.startswith("broker"):
                    built = time.perf_counter() - started
                if line.startswith("Submitted"):
                    submitted = time.perf_counter()
                if match := re.match(r"Watch it: (\S+)", line):
                    browser.enter_context(_open_in_browser(match[1]))
                if submitted and "What to try next" in line:
                    ended = time.perf_counter()
    if process.returncode != 0 or submitted is None:
        raise SystemExit(f"opd demo --exit --seed {seed} ended with {process.returncode}")
    newest = max((home / "artifacts" / "jobs").iterdir(), key=lambda job: job.name)
    report = json.loads((newest / "report.json").read_text())
    return {
        "seed": seed,
        "build_s": None if built is None else round(built, 1),
        "job_s": round(ended - submitted, 1),
        "accuracy": report["accuracy"],
        "steps": report["spec"]["schedule"]["steps"],
        "threads": report["versions"]["threads"],
        "wall_s_by_phase": {name: round(s, 1) for name, s in report["budget"]["wall_s_by_phase"].items()},
        "student_tokens": report["budget"]["student_tokens"],
    }


@contextlib.contextmanager
def _open_in_browser(url: str) -> Iterator[None]:
    """A real browser on the run's page: the figures hold while somebody watches."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium: measured without a browser")
        yield
        return
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        command = [chromium, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", url]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


if __name__ == "__main__":
    main()
