"""The comparison of made-up runs, with one equal budget and seeds in one arm."""

from __future__ import annotations

import itertools
import math
from typing import Any

Json = dict[str, Any]


def comparison(jobs: list[Json], series: list[Json], axis: str) -> Json:
    """The answer of /compare. ``series`` are the answers of /metrics; the runs of one recipe are one arm."""
    recipes = list(dict.fromkeys(job["recipe"] for job in jobs))
    keys = dict(zip(recipes, "ABCDEFGH", strict=False))
    per_step = {"step": 1, "student_tokens": 1020, "teacher_tokens": 2040, "flops": 3.1e11, "wall_s": 0.37}[axis]
    runs = [_run(job, metrics, keys[job["recipe"]], per_step) for job, metrics in zip(jobs, series, strict=True)]
    arms = []
    for recipe, key in keys.items():
        members = [run for run in runs if run["arm"] == key]
        accuracies = [run["series"]["accuracy"][-1] for run in members if run["steps"]]
        arms.append(
            {
                "key": key,
                "recipe": recipe,
                "jobs": [run["id"] for run in members],
                "seeds": [run["seed"] for run in members],
                "n": len(members),
                "unfinished": sum(run["status"] != "succeeded" for run in members),
                "accuracy_before": spread([0.24] * len(accuracies)),
                "accuracy_after": spread([value for value in accuracies if value is not None]),
                "gap_recovered": spread([0.5] * len(accuracies)),
                "accuracy_at_budget": spread([0.4375 + 0.01 * i for i in range(len(accuracies))]),
                "accuracy_to_budget": spread([0.3125 + 0.01 * i for i in range(len(accuracies))]),
                "accuracy_interval": {"value": 0.45, "low": 0.4, "high": 0.5} if len(accuracies) > 1 else None,
                "student_tokens": spread([1020 * run["step"] for run in members if run["step"]]),
                "teacher_tokens": spread([2040 * run["step"] for run in members if run["step"]]),
                "flops": spread([3.1e11 * run["step"] for run in members if run["step"]]),
                "wall_s": spread([0.37 * run["step"] for run in members if run["step"]]),
            }
        )
    reaches = [run["reach"] for run in runs if run["reach"] is not None]
    differences = [{"path": "recipe", "values": {key: recipe for recipe, key in keys.items()}}]
    differences.append({"path": "method.credit.critic.form", "values": {keys[recipes[-1]]: "differential"}})
    return {
        "object": "comparison",
        "x": axis,
        "budget": min(reaches, default=None),
        "without_budget": [run["id"] for run in runs if run["reach"] is None],
        "runs": runs,
        "arms": arms,
        "duels": [
            {
                "left": left["key"],
                "right": right["key"],
                "seeds": [0],
                "problems": 200,
                "difference": {"value": 0.125, "low": None, "high": None},
                "wins": {"value": 0.625, "low": 0.5, "high": 0.75},
            }
            for left, right in itertools.combinations(arms, 2)
        ],
        "differences": differences if len(keys) > 1 else [],
    }


def _run(job: Json, metrics: Json, arm: str, per_step: float) -> Json:
    steps = metrics["steps"]
    wanted = ("accuracy", "kl", "loss", "length_mean", "entropy_student", "truncated")
    return {
        "id": job["id"],
        "name": job["name"],
        "recipe": job["recipe"],
        "seed": job["spec"]["seed"],
        "status": job["status"],
        "arm": arm,
        "step": job["progress"].get("step"),
        "total": job["progress"].get("total"),
        "teacher": job["accuracy"].get("teacher"),
        "reach": per_step * (steps[-1] - steps[-1] % 5) if steps else None,
        "steps": steps,
        "x": [per_step * step for step in steps],
        "series": {key: metrics["series"].get(key, [None] * len(steps)) for key in wanted},
    }


def spread(values: list[float]) -> Json | None:
    """As the service writes it."""
    if not values:
        return None
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    deviation = math.sqrt(variance) if len(values) > 1 else None
    return {"n": len(values), "mean": mean, "min": min(values), "max": max(values), "sd": deviation}


def shared_problems(sequences: int, step: int, done: list[int]) -> list[Json]:
    """Every recorded sequence of the step, in both runs the same; none beyond the last step."""
    if step > min(done):
        return []
    places = [{"step": step, "n": n, "correct": n % 2 == 0} for n in range(sequences)]
    return [
        {"problem": 17 * step + place["n"], "prompt": "Tom has *3* apples.", "left": place, "right": place,
         "distance": place["n"] // 2}
        for place in places
    ]  # fmt: skip
