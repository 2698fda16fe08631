"""The arms that every comparison has beside its own, at the same budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.bench.plan import Arm, Plan, overlay
from opd_core import recipes

_GROUP = 4


def controls(plan: Plan) -> Iterator[Arm]:
    """Arms for the controls of the plan; a random gate for each arm that selects tokens."""
    for control in plan.controls:
        match control:
            case "random-gate":
                yield from filter(None, (random_gate(arm, plan.base) for arm in plan.arms))
            case "verifier-rl":
                yield Arm(name=control, recipe=control, set={"rollout": _grouped(plan.base.get("rollout") or {})})
            case _:
                yield Arm(name=control, recipe=control)


def random_gate(arm: Arm, base: dict[str, Any]) -> Arm | None:
    """The arm with the weights of its gates shuffled over the tokens of each batch; None where nothing selects."""
    method = overlay(base.get("method") or {}, arm.set.get("method") or {})
    gates = recipes.adapt(arm.recipe, method).model_dump(mode="json")["gates"]
    shuffled = [{**gate, "control": "random"} if gate.get("control") == "none" else gate for gate in gates]
    if shuffled == gates:
        return None
    change = overlay(arm.set, {"method": {"gates": shuffled}})
    return arm.model_copy(update={"name": f"{arm.name}-random"[:40], "set": change, "factors": {}})


def _grouped(rollout: dict[str, Any]) -> dict[str, Any]:
    """As many completions per step, but several of each prompt: the verifier compares them."""
    samples = max(_GROUP, int(rollout.get("samples_per_prompt", 1)))
    completions = int(rollout.get("prompts_per_step", 32)) * int(rollout.get("samples_per_prompt", 1))
    return {"prompts_per_step": max(1, completions // samples), "samples_per_prompt": samples}
