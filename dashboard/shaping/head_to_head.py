"""Arms against each other in tables: outcome, price, and what differs between their specs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from api.schemas import Arm, Comparison, Interval, Spread
from dashboard.shaping.compared import Look
from dashboard.shaping.text import compact, percent, readable

Show = Callable[[float], str]


def spread_text(found: Spread | None, show: Show) -> str:
    """``63.5 %`` of one run, ``63.5 % (61.0 % to 66.0 %, sd 3.5 %)`` of several; a dash for none."""
    if found is None:
        return "–"
    if found.sd is None:
        return show(found.mean)
    return f"{show(found.mean)} ({show(found.min)} to {show(found.max)}, sd {show(found.sd)})"


def interval_text(found: Interval | None, *, bare: bool = False, points: bool = False) -> str:
    """``62.0 % (51.3 to 72.7)``; ``bare``: the interval alone; a dash for what is not known. ``points``: a difference
    of percentages, with its sign.
    """
    if found is None or (bare and found.low is None):
        return "–"
    show = (lambda value: f"{100 * value:+.1f}") if points else (lambda value: f"{100 * value:.1f}")
    unit = "points" if points else "%"
    if found.low is None or found.high is None:
        return f"{show(found.value)} {unit}"
    reach = f"{show(found.low)} to {show(found.high)}"
    return f"{reach} {unit}" if bare else f"{show(found.value)} {unit} ({reach})"


def duels(comparison: Comparison) -> pd.DataFrame:
    """One row per pair of arms that were examined on the same problems."""
    names = {arm.key: f"{arm.key} · {arm.recipe}" for arm in comparison.arms}
    return pd.DataFrame(
        {
            "arm": [names[one.left] for one in comparison.duels],
            "against": [names[one.right] for one in comparison.duels],
            "seeds": [len(one.seeds) for one in comparison.duels],
            "problems each": [one.problems for one in comparison.duels],
            "accuracy": [interval_text(one.difference, points=True) for one in comparison.duels],
            "wins": [interval_text(one.wins) for one in comparison.duels],
        }
    )


def painted(table: pd.DataFrame, colors: list[str]) -> Styler:
    """The table with each row's line in its colour."""
    return table.style.apply(lambda _: [f"color: {color}" for color in colors], subset=[""])


def outcomes(comparison: Comparison, drawn: dict[str, Look]) -> pd.DataFrame:
    """One row per arm: how far it came."""
    return _arms(
        comparison,
        drawn,
        {
            "before": lambda arm: spread_text(arm.accuracy_before, percent),
            "after": lambda arm: spread_text(arm.accuracy_after, percent),
            "95 % interval": lambda arm: interval_text(arm.accuracy_interval, bare=True),
            "gap closed": lambda arm: spread_text(arm.gap_recovered, lambda value: percent(value, 0)),
            "at equal budget": lambda arm: spread_text(arm.accuracy_at_budget, percent),
            "mean up to there": lambda arm: spread_text(arm.accuracy_to_budget, percent),
        },
    )


def prices(comparison: Comparison, drawn: dict[str, Look]) -> pd.DataFrame:
    """One row per arm: what it has spent."""
    return _arms(
        comparison,
        drawn,
        {
            "student tokens": lambda arm: spread_text(arm.student_tokens, compact),
            "teacher tokens": lambda arm: spread_text(arm.teacher_tokens, compact),
            "FLOPs": lambda arm: spread_text(arm.flops, compact),
            "training time, s": lambda arm: spread_text(arm.wall_s, lambda value: f"{value:,.1f}"),
        },
    )


def _arms(comparison: Comparison, drawn: dict[str, Look], columns: dict[str, Callable[[Arm], str]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "": [drawn[arm.jobs[0]].line for arm in comparison.arms],
            "arm": [f"{arm.key} · {arm.recipe}" for arm in comparison.arms],
            "runs": [_runs(arm) for arm in comparison.arms],
            **{name: [show(arm) for arm in comparison.arms] for name, show in columns.items()},
        }
    )


def _runs(arm: Arm) -> str:
    return f"{arm.n}" + (f", {arm.unfinished} unfinished" if arm.unfinished else "")


def runs(comparison: Comparison, drawn: dict[str, Look]) -> pd.DataFrame:
    """One row per run: the legend of all curves."""
    return pd.DataFrame(
        {
            "": [drawn[run.id].line for run in comparison.runs],
            "run": [drawn[run.id].label for run in comparison.runs],
            "recipe": [run.recipe for run in comparison.runs],
            "seed": [run.seed for run in comparison.runs],
            "status": [run.status for run in comparison.runs],
            "step": [f"{run.step or 0} of {run.total}" if run.total else "–" for run in comparison.runs],
            "accuracy": [percent(_last(run.series.get("accuracy", []))) for run in comparison.runs],
        }
    )


def _last(values: list[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def differences(comparison: Comparison) -> pd.DataFrame:
    """Fields that are not the same in all arms; a dash where an arm has no such field."""
    return pd.DataFrame(
        {
            "field": [one.path for one in comparison.differences],
            **{
                f"{arm.key} · {arm.recipe}": [
                    _value(one.values[arm.key]) if arm.key in one.values else "–" for one in comparison.differences
                ]
                for arm in comparison.arms
            },
        }
    )


def _value(value: Any) -> str:
    return readable(value) if isinstance(value, str) else json.dumps(value)
