"""The submit form's spec: where it starts, what of it differs from the defaults, and how to submit it elsewhere."""

from __future__ import annotations

import json
import shlex
from typing import Any

from dashboard.shaping.schema import Field, default_of

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

# Where one of these differs, the spec takes the whole object: another alternative starts from its own defaults.
_CHOICES = ("route", "kind")
_LONGEST_NAME = 96


def with_recipe(base: Spec, recipe: str, needs: list[str], brings: Spec | None = None) -> Spec:
    """The base spec under another recipe: with the teacher and the rollout that it brings, and more samples of a prompt
    where it compares them.
    """
    name = str(base["name"]).removesuffix(f"-{base['recipe']}")
    spec = {**base, "recipe": recipe, "name": f"{name}-{recipe}"[:_LONGEST_NAME]}
    spec.pop("method", None)
    brings = brings or {}
    if "teacher" in brings:
        spec["teacher"] = brings["teacher"]
    elif "model" not in spec.get("teacher", {}):  # the one that the recipe before had brought
        spec["teacher"] = DEMO_SPEC["teacher"]
    rollout = {**spec.get("rollout", {}), **brings.get("rollout", {})}
    spec["rollout"] = rollout
    if "group" in needs and rollout.get("samples_per_prompt", 1) < 2:
        prompts = rollout.get("prompts_per_step", 32)
        spec["rollout"] = rollout | {"samples_per_prompt": 4, "prompts_per_step": max(1, prompts // 4)}
    return spec


def fork(spec: Spec, job_id: str, checkpoint_id: str) -> Spec:
    """The same job again, from a checkpoint of it."""
    name = f"{spec['name']}-fork"[:_LONGEST_NAME]
    return {**spec, "name": name, "from": {"job": job_id, "checkpoint": checkpoint_id}}


def changes(value: Spec, base: Spec) -> Spec:
    """The smallest override that makes ``value`` of ``base``."""
    found: Spec = {}
    for name, entry in value.items():
        old = base.get(name)
        if entry == old:
            continue
        same_kind = isinstance(entry, dict) and isinstance(old, dict)
        if same_kind and all(entry.get(choice) == old.get(choice) for choice in _CHOICES):
            found[name] = changes(entry, old)
        else:
            found[name] = entry
    return {name: entry for name, entry in found.items() if entry != {}}


def build(
    values: Spec,
    method: Spec,
    recipe: str,
    recipe_method: Spec,
    fields: tuple[Field, ...],
    brings: Spec | None = None,
) -> Spec:
    """The spec of a filled-in form, without what is at its default anyway: the recipe's own where it ``brings`` one."""
    overrides = changes(method, recipe_method)
    defaults = default_of(fields)
    brought = (brings or {}).get("rollout", {})
    if brought:
        defaults["rollout"] = {**defaults["rollout"], **brought}
    spec = {"recipe": recipe, **changes({**values, "recipe": recipe}, defaults)}
    order = ["name", "from", "student", "teacher", "task", "recipe"]
    if overrides:
        spec["method"] = overrides
    kept = {name: entry for name, entry in spec.items() if entry not in (None, {})}
    return {name: kept[name] for name in sorted(kept, key=lambda one: order.index(one) if one in order else len(order))}


def as_json(spec: Spec) -> str:
    """For reading, and for a file."""
    return json.dumps(spec, indent=2)


def as_curl(spec: Spec, url: str) -> str:
    """The command that submits it over HTTP."""
    return (
        f"curl -sS {shlex.quote(url + '/v1/jobs')} \\\n"
        '  -H "Authorization: Bearer $OPD_API_TOKEN" -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(json.dumps(spec))}"
    )


def as_command(spec: Spec) -> str:
    """The command that submits it from a terminal."""
    return f"opd submit - <<'SPEC'\n{as_json(spec)}\nSPEC"
