"""What gates did: the budget they used, the tokens they silenced, how they overlap."""

from __future__ import annotations

from typing import Any

import pandas as pd

from api.schemas import GateSummary, Job, Metrics
from dashboard.shaping.colors import Scale
from dashboard.shaping.curves import newest
from dashboard.shaping.matrix import matrix
from dashboard.shaping.profiles import BLUE
from dashboard.shaping.runs import Figure
from dashboard.shaping.text import percent, visible, words

_DRAWN = "#7a8794"


def asked(job: Job) -> dict[str, dict[str, Any]]:
    """The gates of the run's method by name, with their settings."""
    found: dict[str, dict[str, Any]] = {}
    for gate in job.resolved_spec.get("method", {}).get("gates", []):
        found[str(gate.get("kind"))] = {key: value for key, value in gate.items() if key != "kind"}
    return found


def budget(settings: dict[str, Any] | None) -> float | None:
    """The share of tokens that a gate was told to keep; None where its rule says no share."""
    if not settings:
        return None
    if isinstance(share := settings.get("share"), int | float):
        return float(share)
    return 1.0 - float(settings["drop"]) if isinstance(settings.get("drop"), int | float) else None


def described(name: str, settings: dict[str, Any]) -> str:
    """A gate with its settings, as one line of plain text."""
    return f"{words(name)}: " + (", ".join(f"{key} {value}" for key, value in settings.items()) or "no settings")


def figures(summary: GateSummary, metrics: Metrics, gate: str | None, settings: dict[str, Any] | None) -> list[Figure]:
    """Realised budget beside the requested one."""
    speaks = None if gate is None else newest(metrics, f"gate_{gate}_share")
    wanted = budget(settings)
    return [
        Figure(
            "Speak, newest step",
            percent(speaks),
            "Share of all tokens of the newest step that the gate does not silence altogether.",
        ),
        Figure("Asked for", percent(wanted), "The share that the method asks for; – where its rule is no share."),
        Figure(
            "Silenced, recorded",
            percent(summary.silenced if summary.tokens else None),
            "Share of the recorded tokens of these steps that speak at less than half of their voice.",
        ),
        Figure(
            "Mean weight, recorded",
            "–" if summary.mean is None else f"{summary.mean:.3f}",
            "0 = silent, 1 = as it is; a gate may also make a token louder.",
        ),
    ]


def silenced(summary: GateSummary) -> pd.DataFrame:
    """The most silenced tokens; ``by chance`` is what a random gate of the same budget would silence."""
    rows = summary.most_silenced
    return pd.DataFrame(
        {
            "token": [visible(row.text) for row in rows],
            "seen": [row.seen for row in rows],
            "silenced": [row.silenced for row in rows],
            "by chance": pd.Series([row.seen * summary.silenced for row in rows], dtype="float64"),
            "share": pd.Series([row.silenced / row.seen for row in rows], dtype="float64"),
            "lift": pd.Series([row.lift for row in rows], dtype="float64"),
        }
    )


def overlap(summary: GateSummary, *, theme: str) -> dict[str, Any]:
    """Gate x gate: of the tokens that one of the two silences, the share that both do; chance in the tooltip."""
    names = [words(name) for name in summary.gates]
    cells = [
        (names[j], names[i], float(f"{value:.3g}"), float(f"{summary.chance[i][j] or 0.0:.3g}"))
        for i in range(len(names))
        for j in range(len(names))
        if (value := summary.overlap[i][j]) is not None
    ]
    return matrix(
        pd.DataFrame(cells, columns=["gate", "other", "overlap", "chance"]),
        axes=("gate", "other", "overlap"),
        categories=(names, names),
        names=("", ""),
        tooltip="{@gate} and {@other}: {@overlap}, by chance {@chance}",
        used=Scale(limit=1.0, signed=False),
        theme=theme,
    )


def over_steps(metrics: Metrics, gate: str, wanted: float | None) -> dict[str, Any] | None:
    """Share of tokens that speak, step by step, with the requested share as a line; None where it was not recorded."""
    share = metrics.series.get(f"gate_{gate}_share")
    if not share:
        return None
    table = pd.DataFrame({"step": metrics.steps, "speak": [None if v is None else 100 * v for v in share]})
    table = table.astype("float64").dropna()
    series: dict[str, Any] = {
        "type": "line",
        "name": "speak",
        "encode": {"x": "step", "y": "speak", "tooltip": ["speak"]},
        "showSymbol": len(table) < 2,
        "lineStyle": {"width": 2, "color": BLUE},
        "itemStyle": {"color": BLUE},
    }
    if wanted is not None:
        mark = {"yAxis": 100 * wanted, "lineStyle": {"type": "dashed", "color": _DRAWN}}
        mark["label"] = {"formatter": "asked for", "position": "insideStartTop", "color": _DRAWN, "fontSize": 11}
        series["markLine"] = {"symbol": "none", "silent": True, "animation": False, "data": [mark]}
    return {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 14, "bottom": 22, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "%.3g %%"},
        "dataset": {"source": table},
        "xAxis": {
            "type": "value",
            "min": 0,
            "max": "dataMax",
            "minInterval": 1,
            "name": "step",
            "nameLocation": "middle",
            "nameGap": 22,
            "splitLine": {"show": False},
        },
        "yAxis": {"type": "value", "min": 0, "max": 100, "axisLabel": {"formatter": "{value} %"}},
        "series": [series],
    }
