"""Where probability moved: the heatmaps of predicted and realised change, and the table below."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from api.schemas import Heatmap
from dashboard.shaping.colors import Scale, diverging, scale
from dashboard.shaping.text import visible

STEP_LIMIT = 100  # a live heatmap over a long run would read all of its records again and again
ROW_LIMIT = 16
COLUMN_LIMIT = 16
# Long tokens must not push the cells off the chart; the tooltip has them in full.
_SHORT = {"width": 84, "overflow": "truncate"}


def labels(tokens: Sequence[tuple[int, str]]) -> list[str]:
    """Axis labels of (id, text): visible text, with the id where two tokens look the same."""
    seen = Counter(visible(text) for _, text in tokens)
    return [f"{visible(text)} #{i}" if seen[visible(text)] > 1 else visible(text) for i, text in tokens]


def heatmap_scale(heatmap: Heatmap) -> Scale:
    """One scale for both heatmaps, symmetric around zero."""
    values = [value for matrix in (heatmap.predicted, heatmap.realised) for row in matrix for value in row]
    return scale(values, signed=True, at_least=1e-9)


def option(heatmap: Heatmap, which: str, used: Scale, *, theme: str) -> dict[str, Any]:
    """The ECharts option of ``predicted`` or ``realised``. Rows run downwards, most frequent first."""
    matrix: list[list[float]] = getattr(heatmap, which)
    rows = labels([(row.id, row.text) for row in heatmap.rows])
    columns = labels([(column.id, column.text) for column in heatmap.columns])
    cells = pd.DataFrame(
        {
            "destination": [column for _ in rows for column in columns],
            "suppressed": [row for row in rows for _ in columns],
            # Four digits: the tooltip prints the number as it is.
            "change": [float(f"{value:.4g}") for line in matrix for value in line],
        }
    )
    text = "#1c2733" if theme == "light" else "#e4e9ef"
    return {
        "animation": False,
        "grid": {"left": 8, "right": 8, "top": 8, "bottom": 52, "containLabel": True},
        "dataset": {"source": cells},
        # {c} would print the whole row; ECharts escapes what the placeholders insert.
        "tooltip": {"confine": True, "formatter": "{@suppressed} → {@destination}: {@change}"},
        "xAxis": {
            "type": "category",
            "data": columns,
            "axisLabel": {
                "rotate": 45,
                "interval": 0,
                **_SHORT,
                "fontFamily": "monospace",
                "fontSize": 11,
                "color": text,
            },
            "axisTick": {"show": False},
        },
        "yAxis": {
            "type": "category",
            "data": rows,
            "inverse": True,
            "axisLabel": {"interval": 0, **_SHORT, "fontFamily": "monospace", "fontSize": 11, "color": text},
            "axisTick": {"show": False},
        },
        "visualMap": {
            "min": -used.limit,
            "max": used.limit,
            "dimension": "change",
            "precision": 6,
            "calculable": False,
            "orient": "horizontal",
            "left": "center",
            "bottom": 0,
            "itemHeight": 150,
            "itemWidth": 10,
            "text": [f"+{used.limit:.2g}", f"−{used.limit:.2g}"],
            "textStyle": {"color": text},
            "inRange": {"color": diverging(theme)},
        },
        "series": [
            {
                "type": "heatmap",
                "name": which,
                "encode": {"x": "destination", "y": "suppressed", "value": "change"},
                "itemStyle": {"borderWidth": 1, "borderColor": "#dbe1e8" if theme == "light" else "#303a47"},
            }
        ],
    }


def moves(heatmap: Heatmap, limit: int = 40) -> pd.DataFrame:
    """The largest realised moves as rows: suppressed, count, destination, predicted, realised."""
    rows = [
        {
            "suppressed": row_label,
            "seen": row.count,
            "destination": column_label,
            "predicted": heatmap.predicted[i][j],
            "realised": heatmap.realised[i][j],
        }
        for i, (row, row_label) in enumerate(
            zip(heatmap.rows, labels([(r.id, r.text) for r in heatmap.rows]), strict=True)
        )
        for j, column_label in enumerate(labels([(c.id, c.text) for c in heatmap.columns]))
    ]
    table = pd.DataFrame(rows, columns=["suppressed", "seen", "destination", "predicted", "realised"])
    return table.sort_values("realised", ascending=False, key=abs, ignore_index=True).head(limit)


def agreement(heatmap: Heatmap) -> float | None:
    """Cosine between the predicted and the realised matrix; None when either is all zero."""
    predicted = [value for row in heatmap.predicted for value in row]
    realised = [value for row in heatmap.realised for value in row]
    norms = sum(v * v for v in predicted) * sum(v * v for v in realised)
    if norms <= 0:
        return None
    return sum(p * r for p, r in zip(predicted, realised, strict=True)) / math.sqrt(norms)
