"""A heatmap as an ECharts option: numbers by step and position, or tokens against tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dashboard.shaping.colors import Scale, diverging, sequential

# Long tokens must not push the cells off the chart; the tooltip has them in full. Every one has its label.
_TOKEN = {"interval": 0, "width": 84, "overflow": "truncate", "fontFamily": "monospace"}


def matrix(
    cells: pd.DataFrame,
    *,
    axes: tuple[str, str, str],
    categories: tuple[Sequence[str], Sequence[str]],
    names: tuple[str, str] | None = None,
    tooltip: str,
    used: Scale,
    theme: str,
) -> dict[str, Any]:
    """The option. ``axes`` names the columns of ``cells`` for x, y and colour; rows run downwards.

    ``names`` are the axes' titles; without them both axes list tokens. ``tooltip`` is a template: ECharts escapes what
    its placeholders insert.
    """
    color, line = ("#1c2733", "#dbe1e8") if theme == "light" else ("#e4e9ef", "#303a47")
    x, y, value = axes
    across, down = (_axis(list(found), color) for found in categories)
    down["inverse"] = True
    if names is None:
        across["axisLabel"] |= {**_TOKEN, "rotate": 45}
        down["axisLabel"] |= _TOKEN
    else:
        across |= {"name": names[0], "nameLocation": "middle", "nameGap": 24}
        down |= {"name": names[1], "nameLocation": "middle", "nameGap": 34}
    return {
        "animation": False,
        "grid": {"left": 26 if names else 8, "right": 8, "top": 8, "bottom": 62 if names else 52, "containLabel": True},
        "dataset": {"source": cells},
        "tooltip": {"confine": True, "formatter": tooltip},
        "xAxis": across,
        "yAxis": down,
        "visualMap": {
            "min": -used.limit if used.signed else 0,
            "max": used.limit,
            "dimension": value,
            "precision": 6,
            "calculable": False,
            "orient": "horizontal",
            "left": "center",
            "bottom": 0,
            "itemHeight": 150,
            "itemWidth": 10,
            "text": [f"{'+' if used.signed else ''}{used.limit:.2g}", f"−{used.limit:.2g}" if used.signed else "0"],
            "textStyle": {"color": color},
            "inRange": {"color": diverging(theme) if used.signed else sequential(theme)},
        },
        "series": [
            {
                "type": "heatmap",
                "encode": {"x": x, "y": y, "value": value},
                "progressive": 0,
                **({} if names else {"itemStyle": {"borderWidth": 1, "borderColor": line}}),
            }
        ],
    }


def _axis(labels: list[str], color: str) -> dict[str, Any]:
    return {
        "type": "category",
        "data": labels,
        "axisLabel": {"color": color, "fontSize": 11},
        "axisTick": {"show": False},
    }
