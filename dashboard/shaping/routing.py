"""Where probability moved: the heatmaps of what was sent, predicted and realised, and the numbers around them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from api.schemas import Heatmap, Job, Metrics, Occurrences, RouteBalance
from dashboard.shaping.colors import Scale, scale
from dashboard.shaping.matrix import matrix
from dashboard.shaping.runs import Figure
from dashboard.shaping.text import percent, visible

STEP_LIMIT = 100  # a live heatmap over a long run would read all of its records again and again
ROW_LIMIT = 16
COLUMN_LIMIT = 16


# What can be shown, by its name in the address.
MAPS = {
    "routed": "Sent by the plan",
    "predicted": "Predicted by the plan",
    "realised": "Realised by the network",
    "plain": "As softmax alone would send it",
    "interference": "Realised − predicted",
    "rerouted": "Predicted − softmax alone",
}
SHOWN = ("routed", "predicted", "realised")
_DIFFERENCES = {"interference": ("realised", "predicted"), "rerouted": ("predicted", "plain")}
NOTES = {
    "plain": "**As softmax alone would send it**: the same predicted loss of the suppressed token, spread over the "
    "others in proportion to what the student already gives them; recorded favourites of either model only.",
    "interference": "**Realised − predicted**: what the updates of other states did here.",
    "rerouted": "**Predicted − softmax alone**: what the method itself redirects.",
}


def offered(heatmap: Heatmap) -> list[str]:
    """Names of the maps that this run has."""
    return [name for name in MAPS if name != "routed" or heatmap.routed is not None]


def matrix_of(heatmap: Heatmap, which: str) -> list[list[float]]:
    """The numbers of one map, [row][column]."""
    if which in _DIFFERENCES:
        pairs = zip(*(matrix_of(heatmap, name) for name in _DIFFERENCES[which]), strict=True)
        return [[left - right for left, right in zip(*rows, strict=True)] for rows in pairs]
    found: list[list[float]] = getattr(heatmap, which)
    return found


def labels(tokens: Sequence[tuple[int, str]]) -> list[str]:
    """Axis labels of (id, text): visible text, with the id where two tokens look the same."""
    seen = Counter(visible(text) for _, text in tokens)
    return [f"{visible(text)} #{i}" if seen[visible(text)] > 1 else visible(text) for i, text in tokens]


def change_scale(heatmap: Heatmap) -> Scale:
    """One scale for all maps of change, symmetric around zero, whichever are shown."""
    values = [value for matrix in (heatmap.predicted, heatmap.realised) for row in matrix for value in row]
    return scale(values, signed=True, at_least=1e-9)


def sent_scale(heatmap: Heatmap) -> Scale:
    """The scale of what the plan sent, which is in other units; signed only where something is sent away."""
    values = [value for row in heatmap.routed or [] for value in row]
    return scale(values, signed=any(value < 0 for value in values), at_least=1e-9)


def option(heatmap: Heatmap, which: str, used: Scale, *, theme: str) -> dict[str, Any]:
    """The ECharts option of one of ``MAPS``. Rows run downwards, most frequent first."""
    table = matrix_of(heatmap, which)
    rows = labels([(row.id, row.text) for row in heatmap.rows])
    columns = labels([(column.id, column.text) for column in heatmap.columns])
    cells = pd.DataFrame(
        {
            "destination": [column for _ in rows for column in columns],
            "suppressed": [row for row in rows for _ in columns],
            # Four digits: the tooltip prints the number as it is.
            "change": [float(f"{value:.4g}") for line in table for value in line],
        }
    )
    return matrix(
        cells,
        axes=("destination", "suppressed", "change"),
        categories=(columns, rows),
        tooltip="{@suppressed} → {@destination}: {@change}",
        used=used,
        theme=theme,
    )


def moves(heatmap: Heatmap, limit: int = 40) -> pd.DataFrame:
    """The largest realised moves as rows: suppressed, count, destination, (sent,) predicted, realised."""
    sent = [] if heatmap.routed is None else ["sent"]
    rows = [
        {
            "suppressed": row_label,
            "seen": row.count,
            "destination": column_label,
            **{name: heatmap.routed[i][j] for name in sent if heatmap.routed},
            "predicted": heatmap.predicted[i][j],
            "realised": heatmap.realised[i][j],
        }
        for i, (row, row_label) in enumerate(
            zip(heatmap.rows, labels([(r.id, r.text) for r in heatmap.rows]), strict=True)
        )
        for j, column_label in enumerate(labels([(c.id, c.text) for c in heatmap.columns]))
    ]
    table = pd.DataFrame(rows, columns=["suppressed", "seen", "destination", *sent, "predicted", "realised"])
    return table.sort_values("realised", ascending=False, key=abs, ignore_index=True).head(limit)


def balance_figures(balance: RouteBalance) -> list[Figure]:
    """What the plan takes from suppressed tokens, and what becomes of it."""
    return [
        Figure(
            "Suppressed tokens",
            f"{balance.suppressed:,}",
            "Recorded tokens of these steps that the teacher likes less than the student does.",
        ),
        Figure(
            "Released",
            f"{balance.released:.3f}",
            "How hard the plan pushes a suppressed token down, on average: the size of its negative coefficient, "
            "in nats (0 where its credit is not negative).",
        ),
        Figure(
            "Routed",
            f"{balance.routed:.3f}",
            "How much weight it sends to named destinations, on average over the same tokens. "
            "What is taken beyond that goes where softmax puts it.",
        ),
        Figure(
            "Send nothing",
            percent(balance.empty_rate),
            "Share of suppressed tokens that send nothing: no candidate qualifies, their credit does not suppress "
            "them, or a gate silences them.",
        ),
    ]


def unrouted(job: Job) -> str:
    """Why the plan names no destinations, in one sentence."""
    method = job.resolved_spec.get("method", {})
    if method.get("objective", {}).get("route") == "direct":
        return (
            "This recipe takes the direct route: the teacher's whole distribution says where mass goes, and the plan "
            "names no destinations."
        )
    if method.get("routing", {}).get("kind", "plain") == "plain":
        return (
            "This recipe has no vocabulary routing: plain softmax decides where the mass of a suppressed token goes, "
            "in proportion to what the student already likes."
        )
    return "In these steps the plan sent nothing to named destinations."


LANDINGS = (
    ("realised", "by the network", "What the update really did; it carries the updates of all other states as well."),
    ("predicted", "by the plan", "What the plan would do to that state alone, to first order."),
    ("plain", "by softmax alone", "What the same suppression would do without any route."),
)
_SHARES = (
    ("supported", "supported by the teacher, in reach of the student", "#2a6fbb"),
    ("own", "the student's own favourites", "#c96a1c"),
    ("rest", "everything else", "#9aa5b1"),
)


def landing(metrics: Metrics, first: int, last: int) -> pd.DataFrame | None:
    """Where released mass landed, in percent, mean over the steps first..last: one row per kind; None if unmeasured."""
    rows = []
    for kind, name, _ in LANDINGS:
        means = [_mean(metrics, f"landing_{kind}_{who}", first, last) for who in ("supported", "own")]
        if means[0] is not None and means[1] is not None:
            shares = (100 * means[0], 100 * means[1], 100 * (1 - means[0] - means[1]))
            rows.append((name, *(max(0.0, float(f"{share:.3g}")) for share in shares)))
    return pd.DataFrame(rows, columns=["by", *(who for who, _, _ in _SHARES)]) if rows else None


def _mean(metrics: Metrics, key: str, first: int, last: int) -> float | None:
    pairs = zip(metrics.steps, metrics.series.get(key, ()), strict=False)
    known = [value for step, value in pairs if value is not None and first <= step <= last]
    return sum(known) / len(known) if known else None


def landing_option(table: pd.DataFrame) -> dict[str, Any]:
    """Stacked bars, one per row of ``landing``."""
    return {
        "animation": False,
        "grid": {"left": 8, "right": 24, "top": 30, "bottom": 4, "containLabel": True},
        "legend": {"top": 0, "left": 0, "itemHeight": 8, "itemWidth": 14},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "%.3g %%"},
        "dataset": {"source": table},
        "xAxis": {"type": "value", "max": 100, "axisLabel": {"formatter": "{value} %"}},
        "yAxis": {"type": "category", "inverse": True, "axisTick": {"show": False}},
        "series": [
            {
                "type": "bar",
                "stack": "all",
                "name": name,
                "encode": {"x": who, "y": "by"},
                "barMaxWidth": 26,
                "itemStyle": {"color": color},
            }
            for who, name, color in _SHARES
        ],
    }


def narrowed(heatmap: Heatmap, source: int) -> Heatmap:
    """The heatmap of one suppressed token."""
    kept = [i for i, row in enumerate(heatmap.rows) if row.id == source]

    def of(matrix: list[list[float]]) -> list[list[float]]:
        return [matrix[i] for i in kept]

    return heatmap.model_copy(
        update={
            "rows": [heatmap.rows[i] for i in kept],
            "predicted": of(heatmap.predicted),
            "realised": of(heatmap.realised),
            "plain": of(heatmap.plain),
            "routed": None if heatmap.routed is None else of(heatmap.routed),
        }
    )


def places(found: Occurrences, job_id: str) -> pd.DataFrame:
    """Where a token was suppressed, with the address of each place."""
    rows = found.data
    return pd.DataFrame(
        {
            "place": [f"tokens?job={job_id}&step={at.step}&seq={at.sequence}&token={at.pos}" for at in rows],
            "step": [at.step for at in rows],
            "sequence": [at.sequence for at in rows],
            "position": [at.pos for at in rows],
            "log-ratio": pd.Series([at.log_ratio for at in rows], dtype="float64"),
            "coefficient": pd.Series([at.coefficient for at in rows], dtype="float64"),
            "probed": [at.probed for at in rows],
        }
    )


def agreement(heatmap: Heatmap) -> float | None:
    """Cosine between the predicted and the realised matrix; None when either is all zero."""
    predicted = [value for row in heatmap.predicted for value in row]
    realised = [value for row in heatmap.realised for value in row]
    norms = sum(v * v for v in predicted) * sum(v * v for v in realised)
    if norms <= 0:
        return None
    return sum(p * r for p, r in zip(predicted, realised, strict=True)) / math.sqrt(norms)
