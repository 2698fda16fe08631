"""The built-in demo models, built on first use with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from worker.trainer_process import QUIET

DEMO = ("demo/student", "demo/teacher")


def build(
    home: Path, console: Console, check: Callable[[], None] = lambda: None, models: Collection[str] = DEMO
) -> None:
    """Build those of ``models`` that are built in, unless they are there. ``check`` is called often and may raise."""
    if not any(model.startswith("demo/") for model in models):
        return
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    from opd_core.tasks import demo_models

    if not demo_models.missing(home, models):
        return
    console.print("First use: building the demo models (kept for next time).", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def show(label: str, done: int, total: int) -> None:
            check()
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total)
                if not console.is_terminal:
                    console.print(label, markup=False, highlight=False)
            progress.update(tasks[label], completed=done, total=total)

        demo_models.ensure_all(home, models, show)
