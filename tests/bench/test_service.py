"""``opd bench`` against a real service, killed on the way: no job twice, the report complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.running import Running, running_service
from tests.waiting import wait_until

pytestmark = pytest.mark.service


def bench(running: Running, plan: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", "bench", str(plan), "--out", str(out)]
    environment = {**os.environ, "OPD_HOME": str(running.home)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_killed_and_started_again_it_repeats_nothing(tiny_world: Any, tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    with running_service(home, tiny_world) as running:
        base = running.spec(schedule={"steps": 6, "evaluate_every": 3, "checkpoint_every": 0})
        base.pop("name")
        arms = [{"name": name, "recipe": name} for name in ("forward-kl", "cr-opd")]
        plan = {"name": "tiny", "base": base, "arms": arms, "seeds": [4], "controls": [], "resamples": 200}
        file, out = tmp_path / "plan.yaml", tmp_path / "out"
        file.write_text(yaml.safe_dump(plan))

        first = bench(running, file, out)
        wait_until(lambda: first.poll() is not None or len(list(out.glob("runs/*.json"))) == 1, "the first run", 240)
        assert first.poll() is None, first.communicate()[0]
        first.send_signal(signal.SIGKILL)
        first.communicate()
        kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*.json")}
        assert len(kept) < 2

        # As if it had been killed between submitting and noting it down.
        jobs = json.loads((out / "jobs.json").read_text())
        submitted = len(running.client.jobs(limit=100).data)
        jobs.pop(next(reversed(jobs)))
        (out / "jobs.json").write_text(json.dumps(jobs))

        second = bench(running, file, out)
        said, _ = second.communicate(timeout=400)
        assert second.returncode == 0, said
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        made = running.client.jobs(limit=100).data
        assert len(made) == max(2, submitted) == 2
        labels = Counter((job.metadata["arm"], job.metadata["task"], job.resolved_spec["seed"]) for job in made)
        assert set(labels.values()) == {1}
        assert {job.attempt for job in made} == {1}

    results = json.loads((out / "results.json").read_text())
    assert results["runs"] == {"planned": 2, "ended": 2, "failed": [], "missing": 0, "peers": 0}
    arms = results["tasks"]["base"]["arms"]
    assert list(arms) == ["untrained", "forward-kl", "cr-opd", "teacher"]
    for name in ("forward-kl", "cr-opd"):
        assert arms[name]["seeds"] == [4]
        assert arms[name]["accuracy"]["problems"] == 16
        assert arms[name]["spent"]["steps"]["mean"] == 6
    assert "forward-kl" in (out / "report.md").read_text()
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert len((out / "results.csv").read_text().splitlines()) == 3
