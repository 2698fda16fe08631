"""results.csv: one line per run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from cli.bench.record import Record
from cli.bench.sampled import share_right

_ACCURACY = ("before", "after", "teacher", "gap_recovered")
_BUDGET = ("student_tokens", "teacher_tokens", "teacher_written_tokens", "flops", "wall_s")
COLUMNS = ("arm", "task", "seed", "status", "job", "steps", *_ACCURACY, "sampled", *_BUDGET)


def as_csv(records: Iterable[Record]) -> str:
    """Blanks where nothing was measured."""
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    sheet.writerow(COLUMNS)
    for one in records:
        report = one.report or {}
        accuracy, budget = report.get("accuracy", {}), report.get("budget", {})
        sheet.writerow(
            [
                *(one.arm, one.task, one.seed, one.status, one.job or "", report.get("steps", "")),
                *(_shown(accuracy.get(name)) for name in _ACCURACY),
                _shown(share_right(one)),
                *(_shown(budget.get(name)) for name in _BUDGET),
            ]
        )
    return text.getvalue()


def _shown(value: float | None) -> str | float:
    return "" if value is None else value
