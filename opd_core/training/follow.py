"""A process of a job beside its leader: it takes every step with it, and neither speaks nor writes files."""

from __future__ import annotations

from pathlib import Path

from opd_core.runs.artifacts import RunFiles
from opd_core.spec import JobSpec
from opd_core.training.budget import Budget
from opd_core.training.device import set_up_torch
from opd_core.training.prepare import prepare, restore
from opd_core.training.ranks import GATHER, OVER, joined
from opd_core.training.sharded import gathered, shard
from opd_core.training.step import train_step


def follow(spec: JobSpec, files: RunFiles, *, number: int, meeting: Path, attempt: int) -> None:
    """Be process ``number`` of the run of a resolved spec, until its leader says that it is over."""
    device = set_up_torch(spec, number)
    with joined(number, spec.resources.processes, meeting, device) as ranks:
        ranks.tell({})  # the leader has loaded everything: what a user has to be told, it has told
        trainer = prepare(spec, files, device, ranks=ranks, attempt=attempt, emit=lambda _: None, warn=lambda *_: None)
        if spec.resources.sharding == "fsdp2":
            shard(trainer, device)
        restore(trainer, files, device)
        while (order := ranks.tell({})) != OVER:
            if order == GATHER:
                gathered(trainer)
                continue
            trainer.budget = Budget.from_dict(order["budget"])  # what is spent, its leader knows best
            train_step(trainer, order["step"])
