"""Every family can be spread over two processes, layer by layer: the gradients of one."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from opd_core.models import whole
from opd_core.objective.feedback import FeedbackContext
from opd_core.objective.plan import PlanState
from opd_core.objective.targets import HiddenTarget
from opd_core.recipes import load as load_recipe
from opd_core.rollout import imitated, visit
from opd_core.teachers import Scores
from opd_core.training.ranks import ALONE, joined
from opd_core.training.sharded import sharded_step
from opd_core.training.student_step import StudentStep
from opd_core.training.update import Update
from tests.models.test_families import FAMILIES

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="forks, on the CPU"),
]

CPU = torch.device("cpu")
PROMPTS, COMPLETIONS = [[5, 6, 7, 8], [9, 10]], [[11, 12, 13, 14, 15], [16, 17, 18]]


def gradients(lm, ranks):
    """By the names of the model's parameters. The teacher is the student with half of its hidden states."""
    model, module = lm.model, StudentStep(lm.trunk, lm.head)
    if ranks is not ALONE:
        master, module = sharded_step(lm, module, ranks, CPU)
        model = master.model
        assert sum(hasattr(part, "unshard") for part in module.modules()) > 1  # not all in one piece
    rollouts = imitated(PROMPTS, COMPLETIONS, lm)
    with torch.no_grad():
        read = visit(lm.trunk, rollouts)
    module.zero_grad(set_to_none=True)
    Update(
        method=load_recipe("forward-kl").method,
        module=module,
        head=lm.head,
        rollouts=rollouts,
        scores=Scores(HiddenTarget(0.5 * read.rows, lm.head), HiddenTarget(read.ends, lm.head)),
        micro_tokens=10_000,
        state=PlanState(),
        context=FeedbackContext(eos_ids=lm.eos_ids),
        ranks=ranks,
    ).take_gradients()
    return {name: whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}


def take_part(number, students, folder):
    torch.set_num_threads(1)
    with joined(number, 2, folder, CPU) as ranks:
        for family, lm in students.items():
            save_file(gradients(lm, ranks), folder / f"{family}.{number}.safetensors")


def test_two_processes_take_the_gradients_of_one(make, load, tmp_path):
    students = {family: load(make(family, **known, name=family), trainable=True) for family, known in FAMILIES.items()}
    mp.start_processes(take_part, (students, tmp_path), nprocs=2, start_method="fork")
    for family, lm in students.items():
        alone, found = gradients(lm, ALONE), load_file(tmp_path / f"{family}.0.safetensors")
        assert alone.keys() <= found.keys(), family  # what nobody touched has a gradient of zero there
        size = max(float(gradient.abs().max()) for gradient in alone.values())
        for name, gradient in found.items():
            wanted = alone.get(name, torch.zeros_like(gradient))
            # Some families' gradients vanish where others' do not: by the largest of all.
            assert float((gradient - wanted).abs().max()) <= 1e-5 * size, f"{family}: {name}"
