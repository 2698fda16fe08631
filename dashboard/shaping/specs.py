"""The submit form: a starting spec, the fields people change, and the spec that results."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]

DEMO_SPEC: Spec = {
    "name": "demo-forward-kl",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
    "recipe": "forward-kl",
    "rollout": {"prompts_per_step": 128, "samples_per_prompt": 1, "max_new_tokens": 36, "temperature": 1.0},
    "optimizer": {"lr": 0.002, "warmup_steps": 10},
    "schedule": {"steps": 150, "evaluate_every": 25, "checkpoint_every": 50, "max_runtime_s": 1800},
    "telemetry": {"sequences_per_step": 8},
    "resources": {"queue": "cpu"},
    "seed": 0,
}


class FormError(ValueError):
    """The form cannot be turned into a spec; the sentence says which field and why."""


@dataclass(frozen=True)
class Fields:
    """What has its own input; ``advanced`` is the rest of the spec as JSON text."""

    name: str
    recipe: str
    student: str
    teacher: str
    task: str
    steps: int
    lr: float
    seed: int
    advanced: str


def fields(spec: Spec) -> Fields:
    """The form that shows this spec. What has no input of its own goes to ``advanced``."""
    rest = copy.deepcopy(spec)
    task = rest.get("task", {})
    form = Fields(
        name=str(rest.pop("name", "")),
        recipe=str(rest.pop("recipe", "")),
        student=str(rest.get("student", {}).pop("model", "")),
        teacher=str(rest.get("teacher", {}).pop("model", "")),
        task=str(task.pop("name", None) or task.pop("dataset", None) or ""),
        steps=int(rest.get("schedule", {}).pop("steps", 100)),
        lr=float(rest.get("optimizer", {}).pop("lr", 1e-5)),
        seed=int(rest.pop("seed", 0)),
        advanced="",
    )
    # A task written out in full names both sources, one of them null.
    for source in ("name", "dataset"):
        if task.get(source, "") is None:
            del task[source]
    remaining = {key: value for key, value in rest.items() if value not in ({}, None)}
    return Fields(**{**form.__dict__, "advanced": json.dumps(remaining, indent=2)})


def spec(form: Fields) -> Spec:
    """The spec of a filled-in form: ``advanced`` first, the inputs on top. Raises FormError."""
    try:
        built = json.loads(form.advanced) if form.advanced.strip() else {}
    except json.JSONDecodeError as error:
        raise FormError(f"Advanced JSON, line {error.lineno}: {error.msg}.") from error
    if not isinstance(built, dict):
        raise FormError("Advanced JSON must be an object: {...}.")
    for section in ("student", "teacher", "task", "schedule", "optimizer"):
        if not isinstance(built.setdefault(section, {}), dict):
            raise FormError(f"Advanced JSON: {section} must be an object: {{...}}.")
    built |= {"name": form.name.strip(), "recipe": form.recipe, "seed": form.seed}
    built["student"]["model"] = form.student.strip()
    built["teacher"]["model"] = form.teacher.strip()
    built["schedule"]["steps"] = form.steps
    built["optimizer"]["lr"] = form.lr
    task = form.task.strip()
    built["task"]["name" if task.startswith("demo/") else "dataset"] = task
    return built
