"""What a run has spent: tokens, estimated floating-point operations, seconds by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

TRAINING_PHASES = ("rollout", "teacher", "update", "telemetry")
PHASES = (*TRAINING_PHASES, "evaluation", "checkpoint", "setup")


@dataclass
class Budget:
    """Cumulative over all steps that count (a step repeated after a crash is counted once).

    student_tokens: completion tokens that the student generated for training. teacher_written_tokens: those that the
    teacher generated, what it wrote to begin the student's rows included. teacher_tokens: tokens that the teachers
    read to score rows (prompt, context, completion). flops: estimate by 2 per parameter and token forward, 6 for
    forward and backward (embedding look-ups excluded, heads included, attention's quadratic part left out).
    Evaluation is kept apart in eval_tokens and eval_flops.
    """

    student_tokens: int = 0
    teacher_written_tokens: int = 0
    teacher_tokens: int = 0
    flops: float = 0.0
    eval_tokens: int = 0
    eval_flops: float = 0.0
    wall_s_by_phase: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @property
    def wall_s(self) -> float:
        """Seconds of all phases together."""
        return sum(self.wall_s_by_phase.values())

    @property
    def training_s(self) -> float:
        """Seconds of the steps themselves: what evaluations, checkpoints and loading take is nobody's method."""
        return sum(self.wall_s_by_phase[name] for name in TRAINING_PHASES)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds of the block to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wall_s_by_phase[name] += time.perf_counter() - start

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "wall_s": self.wall_s}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Budget:
        return cls(**{key: value for key, value in stored.items() if key != "wall_s"})
