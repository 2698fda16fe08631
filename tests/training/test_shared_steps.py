"""Whole steps, from the problems to the gradients, shared by two processes: they take what one process alone takes.

test_processes.py asks the same of recorded rollouts, method by method. Here the processes write and ask the teacher as
well: with adapters, with a teacher of other tokens, and with rows that others have begun.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import load_file, save_file

from opd_core.recipes import resolve
from opd_core.runs.artifacts import RunFiles
from opd_core.training.learner import Learner
from opd_core.training.prepare import prepare
from opd_core.training.ranks import ALONE, joined
from opd_core.training.step import train_step
from tests.tokenizers import other_model
from tests.two_processes import in_two_processes

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Noting(Learner):
    """Keeps the gradients as they are before they are clipped."""

    noted: dict = field(default_factory=dict)

    def clip(self):
        self.noted.update({n: p.grad.clone() for n, p in self.module.named_parameters() if p.grad is not None})
        return super().clip()


@pytest.fixture
def specs(tiny_world, tiny_spec):
    """By name. Of five prompts the first process writes for two, the second for three."""
    sums = [f"{a} + {b} = {a + b}" for a in range(12) for b in range(12)]
    other = other_model(tiny_world.root / "beside", corpus=sums, tokens=280)
    rollout = {"prompts_per_step": 5, "samples_per_prompt": 2, "max_new_tokens": 8}
    columns = {"prompt_column": "question", "answer_column": "answer", "demonstration_column": "question"}
    # What the teacher reads before a row is longer than what the student reads; what was begun comes after both.
    told = {"model": str(tiny_world.teacher), "context": "{answer} + {answer} {prompt}"}
    sections = {
        "adapters": {"student": {"model": str(tiny_world.student), "lora": {"rank": 2}}},
        "another tokenizer": {
            "teacher": {"model": str(other), "tokenizer": {"min_aligned": 0.05}},
            "recipe": "gae-opd",
        },
        "begun by the teacher": {"teacher": told, "rollout": {**rollout, "prefix": {"of": "teacher", "share": 0.6}}},
        "begun by data": {
            "teacher": told,
            "rollout": {**rollout, "prefix": {"of": "data", "share": 0.6}},
            "task": {"dataset": str(tiny_world.problems), "eval_examples": 4, **columns},
        },
    }
    return {name: resolve(tiny_spec(**{"rollout": rollout, **own})) for name, own in sections.items()}


def gradients(specs, out, ranks):
    """Of the first step of every spec, by name."""
    found = {}
    for name, spec in specs.items():
        t = prepare(spec, RunFiles(out / name), CPU, ranks=ranks, attempt=1, emit=lambda _: None, warn=lambda *_: None)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():  # an adapter that is still nothing would leave half of the gradient at zero
            for parameter in t.learner.module.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        t.learner = Noting(**vars(t.learner))
        metrics = train_step(t, 1).metrics
        found |= {f"{name}: {parameter}": gradient for parameter, gradient in t.learner.noted.items()}
        found[f"{name}: tokens"] = torch.tensor([metrics["student_tokens"], metrics["teacher_tokens"]])
    return found


def take_part(number, specs, folder):
    torch.set_num_threads(1)
    with joined(number, 2, folder, CPU) as ranks:
        save_file(gradients(specs, folder / f"out-{number}", ranks), folder / f"{number}.safetensors")


def test_two_processes_take_the_step_of_one(specs, tmp_path):
    in_two_processes(take_part, specs, tmp_path)
    alone = gradients(specs, tmp_path / "alone", ALONE)
    parts = [load_file(tmp_path / f"{number}.safetensors") for number in (0, 1)]
    assert alone.keys() == parts[0].keys()
    for name, gradient in alone.items():
        assert bool(gradient.any()), name
        assert torch.equal(parts[0][name], parts[1][name]), name
        worst = float((parts[0][name] - gradient).abs().max())
        assert worst <= 1e-5 * float(gradient.abs().max()), f"{name}: off by {worst}"
