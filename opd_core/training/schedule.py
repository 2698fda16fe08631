"""Learning rate as a function of the step: warm-up, then decay. No state, so nothing to resume."""

from __future__ import annotations

import math

from opd_core.spec import OptimizerSpec


def learning_rate(optimizer: OptimizerSpec, step: int, steps: int) -> float:
    """The rate of update ``step`` (1-based) out of ``steps``.

    Rises linearly to ``lr`` over ``warmup_steps`` updates, then decays to ``min_lr_ratio * lr`` after the last one.
    """
    if step <= optimizer.warmup_steps:
        return optimizer.lr * step / (optimizer.warmup_steps + 1)
    remaining = max(1, steps - optimizer.warmup_steps)
    progress = (step - 1 - optimizer.warmup_steps) / remaining
    shape = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[optimizer.decay]
    return optimizer.lr * (optimizer.min_lr_ratio + (1.0 - optimizer.min_lr_ratio) * shape)
