"""Several runs in one chart: a hue for each arm, a shade and a dash for each of its seeds, the same everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from api.schemas import ComparedRun, Comparison
from dashboard.shaping.colors import blend
from dashboard.shaping.curves import Curve
from dashboard.shaping.text import compact, duration, escape_markdown

# Okabe-Ito hues as in the theme, and one more: apart for colour-blind eyes, and the symbol tells as well.
_HUES = {
    "light": ["#1f6fb2", "#d55e00", "#009e73", "#8a5fbf", "#b8860b", "#56a3d9", "#5d6b7a", "#c2417f"],
    "dark": ["#6fb1ea", "#f0955a", "#45c7a0", "#b79ae6", "#e0b84c", "#9ccdf2", "#9aa8b7", "#f08cb4"],
}
_PAGES = {"light": "#ffffff", "dark": "#11161d"}
_SYMBOLS = ["circle", "rect", "triangle", "diamond", "roundRect", "pin", "arrow", "emptyCircle"]
_DASHES = [[], [7, 3], [2, 3], [8, 3, 2, 3], [12, 4], [4, 4], [2, 6], [10, 3, 2, 3, 2, 3]]
# The same in text, for tables.
_LINES = ["━━━━", "╍╍╍╍", "┅┅┅┅", "┉┉┉┉", "━╍━╍", "━┅━┅", "╍┉╍┉", "┅┉┅┉"]
_PALEST = 0.4

CURVES = [
    Curve("accuracy", "Accuracy", "% of held-out problems", {}, share=True, whole=True),
    Curve("kl", "KL to the teacher", "nats per token", {}),
    Curve("loss", "Loss", "each recipe has its own", {}),
    Curve("length_mean", "Completion length", "tokens", {}),
    Curve("entropy_student", "Student entropy", "nats", {}),
    Curve("truncated", "Cut off at the token limit", "% of rollouts", {}, share=True),
]
AXES = {
    "step": "steps",
    "student_tokens": "student tokens",
    "teacher_tokens": "teacher tokens",
    "flops": "FLOPs",
    "wall_s": "training time, s",
}


@dataclass(frozen=True)
class Look:
    """How a run is drawn."""

    color: str
    dash: list[int]
    line: str
    symbol: str
    label: str


def looks(comparison: Comparison, theme: str) -> dict[str, Look]:
    """By job id. Labels tell runs of one name apart."""
    arms = [arm.key for arm in comparison.arms]
    members = {arm.key: arm.jobs for arm in comparison.arms}
    names = Counter(run.name for run in comparison.runs)
    found = {}
    for run in comparison.runs:
        hue, place = arms.index(run.arm), members[run.arm].index(run.id)
        paleness = _PALEST * place / max(1, len(members[run.arm]) - 1)
        label = run.name if names[run.name] == 1 else f"{run.name} · {run.id[-6:]}"
        found[run.id] = Look(
            blend([_HUES[theme][hue], _PAGES[theme]], paleness),
            _DASHES[place],
            _LINES[place],
            _SYMBOLS[hue],
            f"{run.arm} · {label}",
        )
    return found


def points(run: ComparedRun, key: str, *, share: bool) -> list[list[float]]:
    """(x, y) where both are known."""
    pairs = zip(run.x, run.series.get(key, []), strict=False)
    return [[x, 100 * y if share else y] for x, y in pairs if x is not None and y is not None]


def option(curve: Curve, comparison: Comparison, drawn: dict[str, Look], *, grey: str = "#7a8794") -> dict[str, Any]:
    """The ECharts option of one of the small multiples; all of them share the horizontal axis."""
    series = []
    for run in comparison.runs:
        data = points(run, curve.key, share=curve.share)
        look = drawn[run.id]
        series.append(
            {
                "type": "line",
                "name": look.label,
                "data": data,
                "symbol": look.symbol,
                "symbolSize": 6,
                "showSymbol": len(data) <= 30,
                "itemStyle": {"color": look.color},
                "lineStyle": {"width": 2, "color": look.color, "type": look.dash or "solid"},
            }
        )
    ceilings = teachers(comparison) if curve.key == "accuracy" else []
    if ceilings:
        series[0]["markLine"] = {
            "symbol": "none",
            "silent": True,
            "animation": False,
            "data": [
                {
                    "yAxis": 100 * value,
                    "lineStyle": {"type": "dashed", "width": 1.5, "color": grey},
                    "label": {"formatter": "teacher", "position": "insideStartTop", "color": grey, "fontSize": 11},
                }
                for value in ceilings
            ],
        }
    return {
        "animationDuration": 300,
        "grid": {"left": 8, "right": 18, "top": 14, "bottom": 4, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "%.3g %%" if curve.share else "%.4g"},
        "xAxis": {
            "type": "value",
            "min": 0,
            "max": _furthest(comparison.runs),
            "splitLine": {"show": False},
            "splitNumber": 4,
            "axisLabel": {"hideOverlap": True},
        },
        "yAxis": {
            "type": "value",
            "scale": True,
            **({"min": 0} if curve.share else {}),
            **({"max": 100} if curve.whole else {}),
        },
        "series": series,
    }


def teachers(comparison: Comparison) -> list[float]:
    """The teachers' accuracies, each once."""
    return sorted({run.teacher for run in comparison.runs if run.teacher is not None})


def takeaway(curve: Curve, comparison: Comparison, drawn: dict[str, Look]) -> str:
    """One sentence for people who cannot see the chart: where each run stands."""
    ends = [(drawn[run.id].label, points(run, curve.key, share=curve.share)) for run in comparison.runs]
    known = [f"{label} at {data[-1][1]:.3g}" for label, data in ends if data]
    return f"{curve.title} ({curve.unit}): " + ("; ".join(known) or "nothing measured")


def amount(axis: str, value: float | None) -> str:
    """A place on the axis in words: ``1.2 M student tokens``."""
    if axis == "wall_s":
        return f"{duration(value)} of training"
    return f"{value:,.0f} steps" if axis == "step" and value is not None else f"{compact(value)} {AXES[axis]}"


def budget_sentence(comparison: Comparison) -> str:
    """What "at equal budget" means here; markdown."""
    names = {run.id: run.name for run in comparison.runs}
    left_out = ", ".join(names[job_id] for job_id in comparison.without_budget)
    missing = f" Not measured on this axis: {escape_markdown(left_out)}." if left_out else ""
    if comparison.budget is None:
        return "No run has an evaluation on this axis yet, so there is no equal budget." + missing
    return (
        f"Equal budget: **{escape_markdown(amount(comparison.x, comparison.budget))}**, the largest one that every run "
        "has reached with an evaluation; between two evaluations accuracy is interpolated linearly." + missing
    )


def _furthest(runs: Iterable[ComparedRun]) -> float | str:
    return max((x for run in runs for x in run.x if x), default="dataMax")
