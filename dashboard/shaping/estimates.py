"""What a job may take, in figures and sentences."""

from __future__ import annotations

import pandas as pd

from api.schemas import Estimate
from dashboard.shaping.text import compact


def figures(told: Estimate) -> list[tuple[str, str, str]]:
    """(label, value, what it is): the whole job at a glance."""
    memory = "–" if told.memory_gib is None else f"{told.memory_gib:.2f} GiB"
    return [
        ("Rollouts", compact(told.rollouts), f"{told.rollouts_per_step:,} a step."),
        ("Student tokens", compact(told.student_tokens), "Completion tokens that the student writes, at most."),
        ("Scored tokens", compact(told.scored_tokens), "Completion tokens that the teachers read, at most."),
        ("FLOPs", compact(told.flops), "Estimated operations of training."),
        ("Memory", memory, "Of one process, about."),
    ]


def parts(told: Estimate) -> pd.DataFrame:
    """What holds the memory."""
    listed = told.memory or []
    return pd.DataFrame({"what": [part.what for part in listed], "GiB": [part.gib for part in listed]})
