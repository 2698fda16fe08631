"""Profiles, gates, health and places of the made-up runs, in the HTTP contract's shapes."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

POSITIONS, BINS = 6, 8
LEVELS = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0]
EDGES = [-4.0, -1.0, 0.0, 1.0, 4.0]
PLAIN = ["log_ratio", "return", "kl", "entropy_student", "entropy_teacher"]
WHOLE = [*PLAIN, "advantage", "coefficient", "value", "gate", "gate:tip", "gate:prefix_weight"]


def profile(field: str, first: int, last: int, done: int, whole: bool) -> Json:
    """Means fall with the position; a field that the run does not have is empty."""
    fields = (WHOLE if whole else PLAIN) if done else []
    steps = [step for step in range(1, done + 1) if first <= step <= last] if field in fields else []
    width = -(-len(steps) // BINS) or 1
    starts = steps[::width]
    gate = field.startswith("gate")
    value = [0.9 if gate else -0.1 * position for position in range(POSITIONS)]
    return {
        "object": "profile",
        "field": field,
        "fields": fields,
        "steps": starts,
        "to_steps": [min(start + width - 1, steps[-1]) for start in starts],
        "positions": list(range(POSITIONS)) if steps else [],
        "position_width": 1,
        "tokens": [[8] * len(starts) for _ in range(POSITIONS)] if steps else [],
        "mean": [[mean] * len(starts) for mean in value] if steps else [],
        "average": [-0.25] * len(starts),
        "levels": LEVELS,
        "quantiles": [[level - 0.5] * len(starts) for level in LEVELS],
        "edges": EDGES,
        "histogram": [1, 2, 4, 1] if steps else [0] * 4,
    }


def gates(gate: str | None, first: int, last: int, done: int, whole: bool, texts: list[str]) -> Json:
    """The first gate silences the first two tokens of the vocabulary."""
    names = ["tip", "prefix_weight"] if whole else []
    field = "gate" if gate is None else f"gate:{gate}"
    silenced = [
        {"id": i, "text": text, "seen": 10, "silenced": 9 - 3 * i, "lift": 1.8 - i} for i, text in enumerate(texts)
    ]
    return {
        "object": "gates",
        "profile": profile(field, first, last, done, whole),
        "summary": {
            "tokens": 400 if whole else 0,
            "silenced": 0.5 if whole else 0.0,
            "mean": 0.625 if whole else None,
            "most_silenced": silenced if whole else [],
            "gates": names,
            "overlap": [[1.0, 0.25], [0.25, 1.0]] if whole else [],
            "chance": [[0.33, 0.2], [0.2, 0.11]] if whole else [],
        },
        "steps_read": done,
        "steps_recorded": done,
    }


def health(done: int) -> Json:
    """One light of each kind once the run has begun."""
    lights = ("bad", "watch", "good", "unknown") if done else ("unknown",) * 4
    steps = list(range(1, done + 1))
    checks = [
        {
            "id": f"A{n}",
            "title": f"Check {n}",
            "variable": "gates",
            "status": status,
            "value": None if status == "unknown" else 0.5,
            "unit": "share",
            "sentence": f"Sentence {n}.",
            "measures": "a thing",
            "causes": "a cause",
            "remedies": "a remedy",
            "series": {"overlap": [0.5] * done} if status != "unknown" else {},
        }
        for n, status in enumerate(lights, 1)
    ]
    return {"object": "health", "steps": steps, "checks": checks, "alarms": []}


def suppressed(token: int) -> Json:
    """Two places."""
    places = [(20, 1, 3, -2.5), (4, 0, 2, -0.5)]
    return {
        "object": "occurrences",
        "token": token,
        "total": 17,
        "data": [
            {"step": step, "sequence": n, "pos": pos, "log_ratio": r, "coefficient": r, "probed": True}
            for step, n, pos, r in places
        ],
    }
