"""The matrix of a plan: one job for each arm, task and seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cli.bench.controls import controls
from cli.bench.plan import RESERVED, Arm, Plan, overlay
from opd_core.recipes import resolve
from opd_core.spec import JobSpec, UserError, validated


@dataclass(frozen=True)
class Cell:
    """One job to be. ``key`` stands for its place and its whole spec: a changed plan keeps what did not change."""

    arm: str
    task: str
    seed: int
    body: dict[str, Any]
    resolved: JobSpec
    key: str

    @property
    def label(self) -> str:
        return f"{self.arm}.{self.task}.s{self.seed}"


@dataclass(frozen=True)
class Matrix:
    """All jobs, seed by seed, so that whatever is finished is as balanced as can be; all arms with the controls.

    ``left_out``: controls that this base has no data for -> the reason.
    """

    cells: list[Cell]
    arms: list[Arm]
    left_out: dict[str, str]


def matrix(plan: Plan) -> Matrix:
    """Every job of the plan, checked. Raises UserError that names arm and task."""
    own = {arm.name for arm in plan.arms}
    left_out: dict[str, str] = {}
    cells: list[Cell] = []
    arms = [*plan.arms, *controls(plan)]
    for arm in arms:
        try:
            cells += [
                _cell(plan, arm, place, seed) for place in range(len(plan.tasks)) for seed in arm.seeds or plan.seeds
            ]
        except UserError as error:
            if arm.name in own:
                raise
            left_out[arm.name] = error.message
    arms = [arm for arm in arms if arm.name not in left_out]
    _check_contrasts(plan, [*(arm.name for arm in arms), *(peer.name for peer in plan.peers), *RESERVED], left_out)
    order = [arm.name for arm in arms]
    tasks = [task.name for task in plan.tasks]
    cells = [cell for cell in cells if cell.arm in order]
    cells.sort(key=lambda cell: (cell.seed, tasks.index(cell.task), order.index(cell.arm)))
    return Matrix(cells, arms, left_out)


def _check_contrasts(plan: Plan, known: list[str], left_out: dict[str, str]) -> None:
    for contrast in plan.contrasts:
        for arm in (contrast.arm, contrast.against):
            if arm is None or arm in known:
                continue
            why = f"it is left out: {left_out[arm]}" if arm in left_out else f"choose from {', '.join(known)}"
            raise UserError(f"PLAN: contrast '{contrast.name}': there is no arm '{arm}'; {why}", param="contrasts")


def _cell(plan: Plan, arm: Arm, place: int, seed: int) -> Cell:
    task = plan.tasks[place]
    body = overlay(overlay(plan.base, task.set), arm.set)
    if plan.budget is not None:
        until = plan.budget.model_dump(exclude_none=True)
        body = overlay(body, {"schedule": {"until": until}})
    body |= {
        "name": f"{plan.name}.{arm.name}.{task.name}.s{seed}"[:96].replace("+", "_"),
        "recipe": arm.recipe,
        "seed": seed,
        "metadata": {"bench": plan.name, "arm": arm.name, "task": task.name},
    }
    try:
        resolved = resolve(validated(JobSpec, body))
    except UserError as error:
        raise _about(arm, task.name, error) from error
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:24]
    return Cell(arm.name, task.name, seed, body, resolved, f"bench-{digest}")


def _about(arm: Arm, task: str, error: UserError) -> UserError:
    return UserError(f"PLAN: arm '{arm.name}' on task '{task}': {error.message}", param=error.param, code=error.code)
