"""A trainer without tensors, for many faults in little time: the contract of ``opd_core.training.main``, and no torch.

It trains a hash: every step takes the one before and the step's number, so a step that is left out or done twice shows
in the end. Checkpoints, manifests, deadlines, signals, messages and exit codes are those of the real one; what the real
one does in between is for the harness without --light.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import signal
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from opd_core.runs.artifacts import CorruptArtifact, RunFiles
from opd_core.runs.deadline import Deadline
from opd_core.training.messages import error, event, phase, warning
from opd_core.training.process import EXIT_STOPPED, die_with_parent, message_channel

_LOADING_S = 0.5
_STEP_S = 0.1
_TOKENS = 7
_NAME = re.compile(r"step-(\d{6})\.a(\d+)")


def main(argv: list[str]) -> int:
    """As the real one: 0 succeeded, 75 stopped, 1 crashed."""
    parser = argparse.ArgumentParser()
    for name in ("--spec", "--out", "--attempt"):
        parser.add_argument(name, default="1")
    arguments = parser.parse_args(argv)
    die_with_parent()
    lease = os.environ.get("OPD_LEASE_FILE")
    files = RunFiles(arguments.out, Deadline(Path(lease)).wait) if lease else RunFiles(arguments.out)
    run = _Run(json.loads(Path(arguments.spec).read_text()), files, int(arguments.attempt))
    signal.signal(signal.SIGTERM, run.stop)
    signal.signal(signal.SIGUSR1, run.save)
    try:
        return run.run()
    except OSError as failure:
        if failure.errno == errno.ENOSPC:
            run.emit(error("disk_full", "the disk is full", param=None, category="resource", retryable=True))
        raise


class _Run:
    def __init__(self, spec: dict[str, Any], files: RunFiles, attempt: int) -> None:
        self.spec, self.files, self.attempt = spec, files, attempt
        self.emit = message_channel()
        self.stopping = self.saving = False
        self.state, self.tokens, self.step = sha256(str(spec["seed"]).encode()).hexdigest(), 0, 0

    def stop(self, *_: object) -> None:
        self.stopping = True

    def save(self, *_: object) -> None:
        self.saving = True

    def run(self) -> int:
        self.emit(phase("loading models"))
        time.sleep(_LOADING_S)
        self._resume()
        schedule = self.spec["schedule"]
        if self.step == 0:
            self._say_scalars(0)
        self.emit(phase("training"))
        while self.step < schedule["steps"]:
            if self.stopping:
                if self.step:
                    self._checkpoint()
                return EXIT_STOPPED
            self._one_step(schedule)
        self._finish()
        return 0

    def _one_step(self, schedule: dict[str, Any]) -> None:
        time.sleep(_STEP_S)
        self.step += 1
        self.state = sha256(f"{self.state} {self.step}".encode()).hexdigest()
        self.tokens += _TOKENS
        self._say_scalars(self.step)
        self._say_progress()
        if self.saving or self.step % schedule["checkpoint_every"] == 0 or self.step == schedule["steps"]:
            self.saving = False
            self._checkpoint()

    def _say_progress(self) -> None:
        steps = self.spec["schedule"]["steps"]
        self.emit({"type": "progress", "step": self.step, "total": steps, "student_tokens": self.tokens})

    def _say_scalars(self, step: int) -> None:
        self.emit({"type": "metrics", "step": step, "values": {"loss": 1.0 / (step + 1)}})

    def _names(self) -> list[str]:
        found = [
            (int(match[1]), int(match[2]), name)
            for name in self.files.list("checkpoints")
            if (match := _NAME.fullmatch(name)) and self.files.exists(f"checkpoints/{name}/manifest.json")
        ]
        return [name for _, _, name in sorted(found, reverse=True)]

    def _resume(self) -> None:
        self.files.sweep("checkpoints")
        for name in self._names():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    self.files.fetch(f"checkpoints/{name}", Path(folder))
                except CorruptArtifact as damage:
                    self.emit(event("checkpoint_damaged", str(damage), level="warning"))
                    self.emit(warning(str(damage)))
                    continue
                kept = json.loads((Path(folder) / "trainer.json").read_text())
            self.state, self.tokens, self.step = kept["state"], kept["tokens"], kept["step"]
            for step in range(self.step + 1):
                self._say_scalars(step)
            self.emit(event("resumed", f"resumed after step {self.step}", step=self.step))
            self._say_progress()
            return

    def _checkpoint(self) -> None:
        staging = Path(tempfile.mkdtemp())
        kept = {"state": self.state, "tokens": self.tokens, "step": self.step}
        (staging / "trainer.json").write_text(json.dumps(kept))
        (staging / "weights").write_bytes(self.state.encode() * 1024)
        name = f"step-{self.step:06d}.a{self.attempt}"
        self._publish(staging, f"checkpoints/{name}", name, "training")
        for old in self._names()[self.spec["checkpoints"]["keep_last"] :]:
            self.files.remove(f"checkpoints/{old}")
            self.emit({"type": "checkpoint_removed", "name": old})

    def _publish(self, staging: Path, folder: str, name: str, kind: str) -> None:
        about = {"step": self.step, "attempt": self.attempt, "kind": kind}
        manifest = self.files.publish(staging, folder, manifest=about)
        size = sum(file["size"] for file in manifest["files"])
        self.emit({"type": "checkpoint", "name": name, "size_bytes": size, **manifest})

    def _finish(self) -> None:
        self.emit(phase("finalizing"))
        staging = Path(tempfile.mkdtemp())
        (staging / "model.safetensors").write_text(self.state)
        self._publish(staging, "student", "student", "export")
        report = {"budget": {"student_tokens": self.tokens, "teacher_tokens": 2 * self.tokens}}
        self.files.write_json("report.json", report)
        self.emit({"type": "result", "report": report})
