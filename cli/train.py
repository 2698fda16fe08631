"""``opd train``: one run in this process, with no service at all."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from cli import specs
from cli.build_models import build
from cli.view import RunView, accuracy_table
from opd_core import recipes
from opd_core.runs.artifacts import RunFiles
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec, UserError, validated
from worker.trainer_process import QUIET, trainer_threads

SUCCEEDED, FAILED, USER_ERROR = 0, 1, 2
_ATTEMPT = re.compile(r"\.a(\d+)(?:\.|$)")


class _StopAfterStep:
    """The first Ctrl-C (or SIGTERM) asks for a checkpoint after the current step; the second one ends at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
        self._console.print("Finishing the step and saving a checkpoint; Ctrl-C again ends at once.", style="yellow")


def train(source: str, out: Path, overrides: list[str], console: Console) -> int:
    """Train the spec in ``source`` into the run directory ``out``; returns the exit code."""
    try:
        spec = load(source, overrides)
    except UserError as error:
        return _refuse(error, console)
    _allow_what_the_spec_names(spec)
    _set_threads(spec)
    # Only now: importing torch takes seconds, and a typing error in a spec should not wait for it.
    from opd_core.training.run import Stopped
    from opd_core.training.run import train as run

    build(Settings().home, console, models=[ref.model for _, ref in spec.models()])
    stop = _StopAfterStep(console)
    try:
        with RunView(console) as view:
            report = run(
                spec,
                str(out),
                attempt=_next_attempt(RunFiles(out)),
                emit=lambda message: view.show(str(message["type"]), message),
                should_stop=lambda: stop.asked,
            )
    except UserError as error:
        return _refuse(error, console)
    except Stopped:
        console.print(f"Stopped, with a checkpoint in {out}. The same command goes on from there.", highlight=False)
        return FAILED
    if report["accuracy"]["after"] is not None:
        console.print(accuracy_table(report["accuracy"]))
    console.print(f"Model   {out / 'student'}\nReport  {out / 'report.md'}", markup=False, highlight=False)
    return SUCCEEDED


def _refuse(error: UserError, console: Console) -> int:
    console.print(error.message, style="red", markup=False, highlight=False)
    return USER_ERROR


def _next_attempt(files: RunFiles) -> int:
    """One more than any attempt that left something in this run directory."""
    names = [*files.list("checkpoints"), *files.list("records")]
    return 1 + max((int(found[1]) for name in names if (found := _ATTEMPT.search(name))), default=0)


def _set_threads(spec: JobSpec) -> None:
    """What a worker sets for its trainer (see worker/trainer_process.py), unless the user has set it."""
    threads = str(trainer_threads(spec.resources.threads, processes=spec.resources.processes))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, threads)
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)


def load(source: str, overrides: list[str]) -> JobSpec:
    """The resolved spec. A relative data file is meant relative to the spec that names it. Raises UserError."""
    data = specs.read(source, overrides)
    folder = Path.cwd() if source == specs.STDIN else Path(source).resolve().parent
    task: Any = data.get("task")
    if isinstance(task, dict):
        for key in ("dataset", "eval_dataset"):
            if isinstance(task.get(key), str):
                task[key] = str(folder / task[key])
    return recipes.resolve(validated(JobSpec, data))


def _allow_what_the_spec_names(spec: JobSpec) -> None:
    """The user at this terminal may read their own files: the spec's own paths become allowed roots."""
    models = [ref.model for _, ref in spec.models() if ref.model.startswith("/")]
    data = [path for path in (spec.task.dataset, spec.task.eval_dataset) if path]
    for variable, paths in (("OPD_MODEL_ROOTS", models), ("OPD_DATA_ROOTS", data)):
        known = os.environ.get(variable, "")
        os.environ[variable] = ":".join([*([known] if known else []), *paths])
