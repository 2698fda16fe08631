"""Learning curves: metric series -> ECharts options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from api.schemas import Metrics
from dashboard.shaping.text import words

Series = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Curve:
    """One chart. ``lines`` maps metric keys to the names shown in the legend.

    ``family`` adds a line NAME for every metric that is called prefix + NAME + suffix: gates and parts of the update
    have the names that the method gives them.
    """

    key: str
    title: str
    unit: str
    lines: dict[str, str]
    family: tuple[str, str] | None = None
    stacked: bool = False
    share: bool = False  # shown in percent
    whole: bool = False  # the axis always ends at 100 %
    from_zero: bool = False  # what hardly moves must look still


LEARNING = [
    Curve("accuracy", "Accuracy", "% of held-out problems", {"accuracy": "student"}, share=True, whole=True),
    Curve("loss", "Loss", "nats per token", {"loss": "loss"}),
    Curve("kl", "KL to the teacher", "nats per token", {"kl": "per-token KL"}),
    Curve("length", "Completion length", "tokens", {"length_mean": "rollouts", "eval_length": "evaluation"}),
    Curve("entropy", "Entropy", "nats", {"entropy_student": "student", "entropy_teacher": "teacher"}),
    Curve("log_ratio", "Log-ratio of sampled tokens", "nats, teacher − student", {"log_ratio_mean": "mean"}),
]
OBJECTIVE = [
    Curve(
        "critic",
        "Critic's quality",
        "1 = explains every return",
        {
            "critic_explained_variance": "explained variance",
            "critic_length_correlation": "correlation with length left",
        },
    ),
    Curve("critic_value", "Critic's mean value", "nats", {"critic_value_mean": "value"}),
    Curve("critic_loss", "Critic's loss", "in target deviations", {"critic_loss": "loss"}),
    Curve(
        "route",
        "Routing",
        "% of tokens; of those without a destination",
        {"route_triggered": "suppressed", "route_empty": "no destination"},
        share=True,
    ),
    Curve("gate_share", "Tokens that a gate lets speak", "%", {}, family=("gate_", "_share"), share=True),
    Curve("gate_weight", "Mean gate", "0 silenced, 1 as it is", {}, family=("gate_", "_weight"), from_zero=True),
    Curve("size", "Update by part", "mean |coefficient|, nats", {}, family=("size_", "")),
    Curve(
        "importance",
        "Importance weights cut off",
        "% of tokens",
        {"importance_truncated": "beyond the cap"},
        share=True,
    ),
    Curve(
        "support",
        "Mass outside the support",
        "%",
        {"support_student_tail": "student's", "support_teacher_tail": "teacher's"},
        share=True,
    ),
]
MACHINE = [
    Curve("grad_norm", "Gradient norm", "before clipping", {"grad_norm": "student", "critic_grad_norm": "critic"}),
    Curve("throughput", "Throughput", "tokens per second", {"tokens_per_s": "tokens/s"}),
    Curve(
        "time",
        "Time by phase",
        "seconds per step",
        {
            "time_rollout_s": "rollout",
            "time_teacher_s": "teacher",
            "time_update_s": "update",
            "time_telemetry_s": "telemetry",
        },
        stacked=True,
    ),
    Curve(
        "memory", "Memory", "GiB", {"memory_gib": "process", "gpu_memory_gib": "GPU, most of a step"}, from_zero=True
    ),
]
GROUPS = {"Learning": LEARNING, "What the objective does": OBJECTIVE, "Optimizer and machine": MACHINE}


def newest(metrics: Metrics, key: str) -> float | None:
    """The last number of a series."""
    known = [value for value in metrics.series.get(key, ()) if value is not None and math.isfinite(value)]
    return known[-1] if known else None


def frame(curve: Curve, steps: Sequence[int], series: Series) -> pd.DataFrame | None:
    """Columns ``step`` and one per line that has any number; None when there is nothing to draw yet."""
    columns = {
        name: list(series[key])
        for key, name in _lines(curve, series).items()
        if any(value is not None for value in series.get(key, ()))
    }
    if not columns:
        return None
    if curve.share:
        columns = {name: [None if v is None else 100 * v for v in values] for name, values in columns.items()}
    table = pd.DataFrame({"step": list(steps), **columns}, dtype="float64")
    # Accuracy exists only on evaluated steps: rows of nothing would break the line.
    return table.dropna(how="all", subset=list(columns))


def _lines(curve: Curve, series: Series) -> dict[str, str]:
    if curve.family is None:
        return curve.lines
    prefix, suffix = curve.family
    found = sorted(key for key in series if key.startswith(prefix) and key.endswith(suffix))
    return {key: words(key.removeprefix(prefix).removesuffix(suffix)) for key in found}


def _reference(value: float, label: str, position: str, color: str) -> dict[str, Any]:
    return {
        "yAxis": value,
        "lineStyle": {"type": "dashed", "width": 1.5, "color": color},
        "label": {"formatter": label, "position": position, "color": color, "fontSize": 11},
    }


def horizon(step: int | None, total: int | None) -> int | None:
    """Where the axes of a run's steps end: at the next round number, so that they seldom move, and not beyond the run.

    None where neither is known.
    """
    if not step:
        return total
    size = 10 ** (len(str(step)) - 1)
    end = next(round(size * times) for times in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if size * times >= step)
    return end if total is None else min(end, max(total, step))


def option(
    curve: Curve,
    table: pd.DataFrame,
    *,
    end: int | None = None,
    ceiling: float | None = None,
    start: float | None = None,
    grey: str = "#7a8794",
) -> dict[str, Any]:
    """The ECharts option.

    ``end`` of the axis of steps; ``ceiling`` and ``start`` (shares) are the teacher's and the first accuracy, dashed
    lines.
    """
    names = [name for name in table.columns if name != "step"]
    series: list[dict[str, Any]] = []
    for name in names:
        line: dict[str, Any] = {
            "type": "line",
            "name": name,
            "encode": {"x": "step", "y": name, "tooltip": [name]},
            "connectNulls": True,
            "showSymbol": len(table) <= 30,
            "symbolSize": 5,
            "lineStyle": {"width": 2},
        }
        if curve.stacked:
            line |= {"stack": "all", "areaStyle": {"opacity": 0.55}, "showSymbol": False, "lineStyle": {"width": 0}}
        series.append(line)
    marks = [
        _reference(100 * value, label, position, grey)
        for value, label, position in ((ceiling, "teacher", "insideStartTop"), (start, "before", "insideEndBottom"))
        if value is not None
    ]
    if marks:
        series[0]["markLine"] = {"symbol": "none", "silent": True, "animation": False, "data": marks}
    return {
        "animationDuration": 300,
        "grid": {"left": 8, "right": 14, "top": 30 if len(names) > 1 else 14, "bottom": 4, "containLabel": True},
        "legend": {"show": len(names) > 1, "top": 0, "right": 0, "itemHeight": 8, "itemWidth": 14},
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "valueFormatter": "%.3g %%" if curve.share else "%.4g",
        },
        "dataset": {"source": table},
        "xAxis": {
            "type": "value",
            "min": 0,
            "max": end or "dataMax",
            "minInterval": 1,
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "scale": not (curve.stacked or curve.from_zero),
            **({"min": 0} if curve.share else {}),
            **({"max": 100} if curve.whole else {}),
        },
        "series": series,
    }


def takeaway(curve: Curve, table: pd.DataFrame) -> str:
    """One plain sentence for people who cannot see the chart: first and last value of each line."""
    parts = []
    for name in table.columns:
        if name == "step":
            continue
        values = table[["step", name]].dropna()
        first, last = values.iloc[0], values.iloc[-1]
        parts.append(
            f"{name} from {first[name]:.3g} at step {first['step']:.0f} to {last[name]:.3g} at step {last['step']:.0f}"
        )
    return f"{curve.title} ({curve.unit}): " + "; ".join(parts)
