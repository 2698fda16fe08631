"""The student's weights, gradients and optimizer state spread over the processes of a job (FSDP2, arXiv 2304.11277).

Each layer is fetched whole when a forward or backward pass of the step comes to it, and let go afterwards; gradients
are added up on the way back, each process keeping its part. Only ``StudentStep`` is run that way. Writing takes a pass
for every token, and processes write for different lengths of time, so everything else (rollouts, evaluations, the
probe, what the plan compares) is done with ``Trainer.student``: a whole copy in each process, in the precision of
frozen models, which fetches what is trained once after each update. A checkpoint is put together by the leader.

The critic is small: each process holds it whole. torch.distributed.checkpoint is not used; it unpickles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from opd_core.models import LanguageModel, cast_parameters, copy_with, whole
from opd_core.training.device import frozen_dtype
from opd_core.training.engine import choose_engine
from opd_core.training.learner import student_learner
from opd_core.training.ranks import Ranks
from opd_core.training.step import Trainer
from opd_core.training.student_step import StudentStep


class Gathered(NamedTuple):
    """What a checkpoint keeps of the student: all of it, and its optimizer's state."""

    student: LanguageModel
    moments: dict[str, Tensor]


def shard(t: Trainer, device: torch.device) -> None:
    """Spread the student that ``prepare`` loaded over ``t.ranks``. All of them have to come here."""
    t.master, t.module = sharded_step(t.student, t.module, t.ranks, device)
    t.learner = student_learner(t.master, t.spec.optimizer)
    dtype = frozen_dtype(t.spec, device)
    t.student.model.requires_grad_(False)
    cast_parameters(t.student.model, dtype)
    engine = choose_engine(t.spec.rollout, t.student, device=device, dtype=dtype)
    t.writer = replace(t.writer, engine=engine)


def sharded_step(
    student: LanguageModel, step: StudentStep, ranks: Ranks, device: torch.device
) -> tuple[LanguageModel, StudentStep]:
    """A copy of ``student`` of which each process holds a part, and ``step`` on it. ``student`` stays as it is."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (ranks.count,))
    # By way of the host: two whole float32 students may be more than the device has room for.
    weights = {name: value.detach().to("cpu", copy=True) for name, value in student.model.named_parameters()}
    master = copy_with(student, weights)
    critic = step.critic
    module = StudentStep(master.trunk, master.head, critic, detach_trunk=step.detach_trunk, recompute=step.recompute)
    layers = [part for part in master.trunk.modules() if isinstance(part, GradientCheckpointingLayer)]
    ignored = set() if critic is None else set(critic.parameters())
    for unit in (*reversed(layers), module):  # inner ones first; a family without layers is fetched in one piece
        fully_shard(unit, mesh=mesh, ignored_params=ignored)
        # The loss has the whole step's normaliser: its parts are added up, not averaged.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    module.set_reduce_scatter_unused_params(True)  # what one process touched, all of them have to send
    register_fsdp_forward_method(module, "read")
    module.sharded = True
    # The model's own output layer is not in the module, its weight is.
    output = master.model.get_output_embeddings()
    output.weight, output.bias = module.head.weight, module.head.bias
    return master, module


def gathered(t: Trainer) -> Gathered:
    """The whole student with its optimizer's state; of sharded ones put together by the leader, in the host's memory.

    Then all processes have to come here, and what the others get is of no use.
    """
    if not t.module.sharded:
        return Gathered(t.student, t.learner.moments())
    weights = _together(t.master.model.named_parameters(), t.ranks)
    moments = _together(t.learner.state(), t.ranks)
    return Gathered(copy_with(t.student, weights) if t.ranks.leads else t.student, moments)


def _together(held: Iterable[tuple[str, Tensor]], ranks: Ranks) -> dict[str, Tensor]:
    """One tensor after the other, so that nobody but the leader has more than one of them whole."""
    found = {}
    for name, value in held:
        full = whole(value.detach())
        if ranks.leads:
            found[name] = full.cpu().contiguous()
    return found
