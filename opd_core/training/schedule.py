"""How far a run is, and the learning rate there: warm-up, then decay. No state beside the budget that is spent."""

from __future__ import annotations

import math

from opd_core.spec import OptimizerSpec
from opd_core.spec.job import ScheduleSpec
from opd_core.training.budget import Budget


def spent(schedule: ScheduleSpec, budget: Budget) -> float:
    """The share of ``schedule.until`` that is spent, 1 or more once it is reached; 0 without one."""
    if schedule.until is None:
        return 0.0
    name, limit = schedule.until.limit
    return (budget.training_s if name == "wall_s" else float(getattr(budget, name))) / limit


def done(schedule: ScheduleSpec, budget: Budget, step: int) -> float:
    """The share of the run that lies behind update ``step`` (1-based), in [0, 1]."""
    return min(1.0, max((step - 1) / schedule.steps, spent(schedule, budget)))


def learning_rate(optimizer: OptimizerSpec, step: int, steps: int, spent: float = 0.0) -> float:
    """The rate of update ``step`` (1-based) out of ``steps``, with a share ``spent`` of another budget behind it.

    Rises linearly to ``lr`` over ``warmup_steps`` updates, then decays to ``min_lr_ratio * lr`` after the last one.
    """
    if step <= optimizer.warmup_steps:
        return optimizer.lr * step / (optimizer.warmup_steps + 1)
    remaining = max(1, steps - optimizer.warmup_steps)
    progress = min(1.0, max((step - 1 - optimizer.warmup_steps) / remaining, spent))
    shape = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[optimizer.decay]
    return optimizer.lr * (optimizer.min_lr_ratio + (1.0 - optimizer.min_lr_ratio) * shape)
