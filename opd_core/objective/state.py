"""What a plan may know beside the batch: how far the run is, running statistics, chance.

Running statistics are exponential moving averages of what each step observed, held fixed within the step, so that the
plan is the same whatever the split into micro-batches or ranks. They are plain floats: a checkpoint keeps them as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

_DECAY = 0.9


@dataclass(frozen=True)
class PlanState:
    """progress: share of the steps that are done, in [0, 1]. running: averages by name, empty before the first step.

    generator: drives random gates; seeded by (seed, step), so a resumed run draws the same. critic_ready: False while
    the critic only learns (credit is immediate until then).
    """

    progress: float = 0.0
    running: Mapping[str, float] = field(default_factory=dict)
    generator: torch.Generator | None = None
    critic_ready: bool = True

    def advanced(self, observed: Mapping[str, float]) -> PlanState:
        """The state after a step that observed these; a first observation is taken as it is."""
        running = dict(self.running)
        for name, value in observed.items():
            running[name] = _DECAY * running[name] + (1.0 - _DECAY) * value if name in running else value
        return replace(self, running=running)
