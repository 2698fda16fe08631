"""A quantity by position and step: heatmap, bands over the steps, distribution, the critic against the returns."""

from __future__ import annotations

from typing import Any

import pandas as pd

from api.schemas import Profile
from dashboard.shaping.colors import Scale, scale
from dashboard.shaping.matrix import matrix
from dashboard.shaping.text import percent, words

# Names of the quantities, what they mean, and whether they have a sign.
QUANTITIES: dict[str, tuple[str, str, bool]] = {
    "log_ratio": ("log-ratio r", "log p(teacher) − log π(student) of the written token, in nats", True),
    "return": ("return", "log-ratios from here to the end of the sequence, summed up, in nats", True),
    "advantage": ("advantage", "the credit that the recipe gives, after baseline or critic", True),
    "value": ("value V", "what the critic expects of the return, in nats", True),
    "coefficient": ("coefficient", "weight of log π(token) in the update", True),
    "kl": ("KL", "divergence of the two next-token distributions, in nats", False),
    "entropy_student": ("student entropy", "uncertainty of the student, in nats", False),
    "entropy_teacher": ("teacher entropy", "uncertainty of the teacher, in nats", False),
}
BANDS = ((0.05, 0.95, 0.18), (0.25, 0.75, 0.32))  # lower, upper, how strong
BLUE, ORANGE = "#2a6fbb", "#c96a1c"


def offered(found: Profile) -> list[str]:
    """The quantities that the run has, in the order in which the update makes them."""
    return [name for name in QUANTITIES if name in found.fields]


def span(first: int, last: int) -> str:
    """``5`` or ``5–8``."""
    return str(first) if first == last else f"{first}–{last}"


def mean_scale(found: Profile, *, signed: bool, at_least: float = 1e-6) -> Scale:
    """The scale of a heatmap of means."""
    return scale([value for row in found.mean for value in row], signed=signed, at_least=at_least)


def heatmap(found: Profile, used: Scale, *, theme: str, unit: str = "") -> dict[str, Any]:
    """The ECharts option: steps to the right, positions downwards, colour = mean over the tokens there."""
    steps = [span(first, last) for first, last in zip(found.steps, found.to_steps, strict=True)]
    positions = [span(first, first + found.position_width - 1) for first in found.positions]
    cells = [
        (step, position, float(f"{value:.4g}"), found.tokens[i][j])
        for i, position in enumerate(positions)
        for j, step in enumerate(steps)
        if (value := found.mean[i][j]) is not None
    ]
    return matrix(
        pd.DataFrame(cells, columns=["step", "position", "mean", "tokens"]),
        axes=("step", "position", "mean"),
        categories=(steps, positions),
        names=("step", "token position"),
        tooltip=f"step {{@step}}, position {{@position}}: {{@mean}}{unit}, {{@tokens}} tokens",
        used=used,
        theme=theme,
    )


def bands(found: Profile, *, end: int | None = None) -> dict[str, Any]:
    """Quantile bands and the mean over steps. ``end`` of the axis of steps."""
    by_level = dict(zip(found.levels, found.quantiles, strict=True))
    table = pd.DataFrame({"step": found.steps, "mean": found.average, "median": by_level[0.5]}, dtype="float64")
    series: list[dict[str, Any]] = []
    for low, high, strength in BANDS:
        name = f"{low:.0%} to {high:.0%}".replace("%", " %")
        lower, upper = (pd.Series(by_level[level], dtype="float64") for level in (low, high))
        table[f"{name} from"], table[name] = lower, upper - lower
        # A band is an invisible line at its lower end and, stacked on it, a filled one of its height.
        shared = {"type": "line", "stack": name, "stackStrategy": "all", "symbol": "none", "lineStyle": {"width": 0}}
        invisible = {"silent": True, "tooltip": {"show": False}, "emphasis": {"disabled": True}}
        series.append({**shared, **invisible, "encode": {"x": "step", "y": f"{name} from"}, "name": f"{name} from"})
        area = {"areaStyle": {"color": BLUE, "opacity": strength}, "itemStyle": {"color": BLUE, "opacity": strength}}
        series.append({**shared, **area, **invisible, "encode": {"x": "step", "y": name}, "name": name})
    for name, style in (("median", "solid"), ("mean", "dashed")):
        color = BLUE if name == "median" else ORANGE
        series.append(
            {
                "type": "line",
                "name": name,
                "encode": {"x": "step", "y": name, "tooltip": [name]},
                "showSymbol": len(table) < 2,
                "lineStyle": {"width": 2, "type": style, "color": color},
                "itemStyle": {"color": color},
            }
        )
    shown = [f"{low:.0%} to {high:.0%}".replace("%", " %") for low, high, _ in BANDS]
    return {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 30, "bottom": 22, "containLabel": True},
        "legend": {"top": 0, "right": 0, "itemHeight": 8, "itemWidth": 14, "data": [*shown, "median", "mean"]},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "%.4g"},
        "dataset": {"source": table},
        "xAxis": {
            "type": "value",
            "min": "dataMin",
            "max": end or "dataMax",
            "minInterval": 1,
            "name": "step",
            "nameLocation": "middle",
            "nameGap": 22,
            "splitLine": {"show": False},
        },
        "yAxis": {"type": "value", "scale": True},
        "series": series,
    }


def histogram(found: Profile) -> dict[str, Any] | None:
    """How many tokens lie between the edges, as shares; None without tokens. The edges are finer around zero."""
    total = sum(found.histogram)
    filled = [i for i, count in enumerate(found.histogram) if count]
    if not filled:
        return None
    shown = range(max(0, filled[0] - 1), min(len(found.histogram), filled[-1] + 2))
    table = pd.DataFrame(
        {
            "between": [f"{found.edges[i]:.2g} to {found.edges[i + 1]:.2g}" for i in shown],
            "share": [100 * found.histogram[i] / total for i in shown],
        }
    )
    return {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 12, "bottom": 8, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "%.3g %%"},
        "dataset": {"source": table},
        "xAxis": {"type": "category", "axisLabel": {"fontSize": 10, "hideOverlap": True, "rotate": 40}},
        "yAxis": {"type": "log", "min": 0.01, "startValue": 0.01, "axisLabel": {"formatter": "{value} %"}},
        "series": [
            {
                "type": "bar",
                "name": "share of tokens",
                "encode": {"x": "between", "y": "share"},
                "barCategoryGap": "8%",
                "itemStyle": {"color": BLUE},
            }
        ],
    }


def facts(found: Profile) -> list[tuple[str, str]]:
    """Name and value of what the distribution says in numbers; the profile is that of one step or a range."""
    if not found.steps or not any(found.histogram):
        return []
    by_level = {level: values[-1] for level, values in zip(found.levels, found.quantiles, strict=True)}
    middle = next(i for i, edge in enumerate(found.edges) if edge >= 0)
    negative = sum(found.histogram[:middle]) / sum(found.histogram)
    numbers = [("tokens", f"{sum(found.histogram):,}"), ("below zero", percent(negative))]
    for level, name in ((0.01, "1 % quantile"), (0.5, "median"), (0.99, "99 % quantile")):
        value = by_level.get(level)
        numbers.append((name, "–" if value is None else f"{value:+.3g}"))
    return numbers


def by_position(lines: dict[str, Profile]) -> dict[str, Any] | None:
    """Means by position, one line per profile (each of one step or range); None without numbers."""
    widths = [found for found in lines.values() if found.mean]
    if not widths:
        return None
    table = pd.DataFrame({"position": widths[0].positions}, dtype="float64")
    for name, found in lines.items():
        # A profile over one column: the mean at each position.
        column = [row[-1] for row in found.mean]
        table[name] = pd.Series(column, dtype="float64").reindex(range(len(table)))
    return {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 30, "bottom": 22, "containLabel": True},
        "legend": {"top": 0, "right": 0, "itemHeight": 8, "itemWidth": 14},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "%.4g"},
        "dataset": {"source": table},
        "xAxis": {
            "type": "value",
            "name": "token position",
            "nameLocation": "middle",
            "nameGap": 22,
            "minInterval": 1,
            "splitLine": {"show": False},
        },
        "yAxis": {"type": "value", "scale": True},
        "series": [
            {
                "type": "line",
                "name": name,
                "encode": {"x": "position", "y": name, "tooltip": [name]},
                "showSymbol": False,
                "lineStyle": {"width": 2, "color": color},
                "itemStyle": {"color": color},
            }
            for name, color in zip(lines, (BLUE, ORANGE), strict=False)
        ],
    }


def label(name: str) -> str:
    """A quantity's or gate's name for people."""
    if name in QUANTITIES:
        return QUANTITIES[name][0]
    return "all gates" if name == "gate" else words(name.removeprefix("gate:"))
