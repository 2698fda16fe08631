"""The reporting checklist, filled in for an arm from what its runs recorded. A blank is None and is shown as one."""

from __future__ import annotations

from typing import Any

from cli.bench.plan import Plan
from cli.bench.record import Record

TOPICS = (
    "models",
    "data",
    "start",
    "rollout",
    "objective",
    "credit",
    "gates",
    "regularizers",
    "cost",
    "evaluation",
    "side effects",
    "selection",
)


def checklist(plan: Plan, records: list[Record]) -> dict[str, Any]:
    """Topic -> what is known of the runs of one arm: they share what is told of the first that succeeded."""
    first = next((record for record in records if record.report), None)
    if first is None or first.report is None:
        return dict.fromkeys(TOPICS)
    told = first.report.get("checklist") or {}
    spent = [record.report["budget"] for record in records if record.report]
    seeds = sorted({record.seed for record in records})
    tasks = sorted({record.task for record in records})
    return {
        "models": told.get("models"),
        "data": told.get("data"),
        "start": {"weights": _start(first), **first.start} if first.start else None,
        "rollout": told.get("rollout"),
        "objective": _joined(told, "objective", "support", "shaping", "routing"),
        "credit": told.get("credit"),
        "gates": told.get("gates"),
        "regularizers": _joined(told, "regularizers", "importance", "reward"),
        "cost": {
            "measured over all runs": {
                key: sum(budget.get(key) or 0 for budget in spent)
                for key in ("student_tokens", "teacher_written_tokens", "teacher_tokens", "flops", "wall_s")
            },
            "not counted": (told.get("cost") or {}).get("not_counted"),
        },
        "evaluation": {
            **(told.get("evaluation") or {}),
            "seeds": seeds,
            "tasks": tasks,
            "controls": plan.controls,
        },
        "side effects": first.end or None,
        "selection": told.get("selection"),
    }


def _start(record: Record) -> str:
    assert record.report is not None
    start = (record.report.get("spec") or {}).get("from")
    return "the student's own checkpoint" if start is None else f"checkpoint of job {start['job']}"


def _joined(told: dict[str, Any], *keys: str) -> dict[str, Any] | None:
    found = {key: told[key] for key in keys if told.get(key) is not None}
    return found or None
