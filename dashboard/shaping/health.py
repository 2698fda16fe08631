"""The diagnostics A1 to A11 as lights: order, colour, and the curve of each."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from api.schemas import Health, HealthCheck
from dashboard.shaping.text import words

_ORDER = {"bad": 0, "watch": 1, "good": 2, "unknown": 3}
LIGHTS = {
    "bad": ("red", ":material/error:", "look now"),
    "watch": ("orange", ":material/visibility:", "watch"),
    "good": ("green", ":material/check_circle:", "fine"),
    "unknown": ("gray", ":material/help:", "not measured"),
}
COLORS = ("#2a6fbb", "#c96a1c", "#3a8f5c", "#8a5bb5", "#7a8794")


def sorted_checks(health: Health) -> list[HealthCheck]:
    """The most urgent first, otherwise in their own order."""
    return sorted(health.checks, key=lambda check: (_ORDER[check.status], int(check.id[1:])))


def headline(health: Health) -> str:
    """One line: how many lights of each colour."""
    counts = Counter(check.status for check in health.checks)
    return ", ".join(f"{counts[status]} {LIGHTS[status][2]}" for status in _ORDER if counts[status])


def curve(check: HealthCheck, steps: list[int]) -> dict[str, Any] | None:
    """The check's metrics over the steps; None without numbers."""
    table = pd.DataFrame({"step": steps, **check.series}, dtype="float64")
    names = [name for name in check.series if table[name].notna().any()]
    if not names:
        return None
    return {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 28, "bottom": 4, "containLabel": True},
        "legend": {"top": 0, "right": 0, "itemHeight": 8, "itemWidth": 14, "type": "scroll"},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "%.4g"},
        "dataset": {"source": table.rename(columns={name: words(name) for name in names})},
        "xAxis": {"type": "value", "min": 0, "max": "dataMax", "minInterval": 1, "splitLine": {"show": False}},
        "yAxis": {"type": "value", "scale": True},
        "series": [
            {
                "type": "line",
                "name": words(name),
                "encode": {"x": "step", "y": words(name), "tooltip": [words(name)]},
                "connectNulls": True,
                "showSymbol": int(table[name].notna().sum()) <= 12,
                "symbolSize": 5,
                "lineStyle": {"width": 2, "color": color},
                "itemStyle": {"color": color},
            }
            for name, color in zip(names, COLORS, strict=False)
        ],
    }
