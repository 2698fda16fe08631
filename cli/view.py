"""How a run looks in a terminal: one live line, and a few sentences that stay.

The same view follows a service job (from its stream) and ``opd train`` (from the training loop itself). Without a
terminal (a pipe, a log of continuous integration) it prints a plain line every few seconds instead.
"""

from __future__ import annotations

import time
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

_PLAIN_EVERY_S = 5.0
_STYLES = {"warning": "yellow", "error": "red"}


class RunView:
    """Shows one run. Use as a context manager; ``show`` takes what the run says, in any order."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task("starting", total=None, detail="")
        self._phase = ""
        self._printed = -_PLAIN_EVERY_S
        self._printed_step: int | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the live line away. May be called again, and from another thread."""
        self._live.stop()

    def show(self, kind: str, data: dict[str, Any]) -> None:
        """One thing the run said: ``kind`` is the type of a stream event or of a trainer message."""
        match kind:
            case "status" | "phase":
                self._show_phase(str(data.get("phase") or data.get("status") or ""))
            case "progress":
                self._show_progress(data)
            case "event":
                self._show_event(data)
            case "warning":
                self._show_event({"level": "warning", "message": data.get("message")})

    def _show_phase(self, phase: str) -> None:
        if not phase or phase == self._phase:
            return
        self._phase = phase
        self._live.update(self._task, description=escape(phase))
        if not self._console.is_terminal:
            self._console.print(phase, markup=False, highlight=False)

    def _show_progress(self, data: dict[str, Any]) -> None:
        step, total = data.get("step"), data.get("total")
        if step is None:
            return
        detail = describe_progress(data)
        self._live.update(self._task, completed=step, total=total, detail=escape(detail))
        now = time.monotonic()
        due = step == total or now - self._printed >= _PLAIN_EVERY_S
        if not self._console.is_terminal and due and step != self._printed_step:
            self._printed, self._printed_step = now, step
            self._console.print(f"step {step}/{total}  {detail}", markup=False, highlight=False)

    def _show_event(self, data: dict[str, Any]) -> None:
        style = _STYLES.get(str(data.get("level")))
        if style is not None:
            self._console.print(str(data.get("message")), style=style, markup=False, highlight=False)


def describe_progress(data: dict[str, Any]) -> str:
    """``loss 0.412  accuracy 33 %  8,123 tokens/s  ETA 0:34``: what is known of it."""
    parts = []
    if (loss := data.get("loss")) is not None:
        parts.append(f"loss {loss:.3f}")
    if (accuracy := data.get("accuracy")) is not None:
        parts.append(f"accuracy {percent(accuracy)}")
    if (speed := data.get("tokens_per_s")) is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    if (eta := data.get("eta_s")) is not None:
        parts.append(f"ETA {clock(eta)}")
    return "  ".join(parts)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def accuracy_table(accuracy: dict[str, Any]) -> Table:
    """What the student could do before and after, and what the teacher can."""
    table = Table(title="Exact match on held-out problems", title_justify="left")
    for column in ("student before", "student after", "teacher", "gap recovered"):
        table.add_column(column, justify="right")
    table.add_row(*(percent(accuracy.get(key)) for key in ("before", "after", "teacher", "gap_recovered")))
    return table
