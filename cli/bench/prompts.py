"""The same runs at equal prompts: what each arm had reached when all of them had seen as many.

At equal tokens an arm that writes less sees more prompts. Runs are examined at the same steps on the way: the last of
these that all have reached compares them the other way round. By accuracy alone, since which problem was solved is kept
of the end only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cli.bench.outcomes import Examined, Table
from cli.bench.record import Record


@dataclass(frozen=True)
class EqualPrompts:
    """``table``: one column, the accuracy after ``steps`` steps, when every run had seen ``prompts`` prompts.

    left_out: arms that take another number of prompts a step than most (verifier-rl takes groups of each).
    """

    steps: int
    prompts: int
    table: Table
    left_out: list[str]


def at_equal_prompts(found: Table, records: Iterable[Record]) -> EqualPrompts | None:
    """None where no step but the first was examined in all runs. A failed run counts with what ``found`` has of it."""
    own = [record for record in records if record.task == found.task and record.arm in found.by_arm]
    a_step = {(record.arm, record.seed): _prompts_per_step(record) for record in own if record.status == "succeeded"}
    if not a_step:
        return None
    ((usual, _),) = Counter(a_step.values()).most_common(1)
    left_out = sorted({arm for (arm, _), prompts in a_step.items() if prompts != usual})
    alike = [record for record in own if record.arm not in left_out]
    curves = {(record.arm, record.seed): _curve(record) for record in alike if record.status == "succeeded"}
    steps = max(set.intersection(*map(set, curves.values())), default=0.0)
    if steps == 0:
        return None
    by_arm: dict[str, dict[int, Examined]] = {}
    for arm, by_seed in found.by_arm.items():
        if arm not in left_out:
            reached = {
                seed: curves[arm, seed][steps] if (arm, seed) in curves else _mean(by_seed[seed]) for seed in by_seed
            }
            by_arm[arm] = {seed: ((0,), np.array([accuracy])) for seed, accuracy in reached.items()}
    return EqualPrompts(int(steps), int(steps) * usual, Table(found.task, by_arm, {}, {}, shared=False), left_out)


def _curve(record: Record) -> dict[float, float]:
    """Examined step -> accuracy."""
    pairs = zip(record.curve.get("step", []), record.curve.get("accuracy", []), strict=True)
    return {step: accuracy for step, accuracy in pairs if step is not None and accuracy is not None}


def _mean(examined: Examined) -> float:
    return float(examined[1].mean())


def _prompts_per_step(record: Record) -> int:
    assert record.report is not None  # of a run that succeeded
    return int(record.report["spec"]["rollout"]["prompts_per_step"])
