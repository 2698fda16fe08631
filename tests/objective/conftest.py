from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.targets import DenseTarget

_spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
assert _spec
assert _spec.loader
oracle = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("oracle", oracle)
_spec.loader.exec_module(oracle)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def batch(generator):
    """(student logits, teacher logits, tokens, mask) of a ragged batch: B = 3, T = 5, V = 7, float64."""
    student = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    tokens = torch.randint(7, (3, 5), generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    return student, teacher, tokens, mask


@pytest.fixture
def feedback(batch):
    def make(temperature: float = 1.0, behaviour_logp=None, **context) -> Feedback:
        given = FeedbackContext(temperature=temperature, behaviour_logp=behaviour_logp, **context)
        return Feedback.from_logits(*batch, context=given)

    return make


@pytest.fixture
def deliver():
    """Feedback that lacks nothing any method may need: critic, rewards, groups, a reference, an end of sequence."""

    def make(student, teacher, tokens, mask, *, values=None, bootstrap=None, **context) -> Feedback:
        rows, dtype = len(tokens), student.dtype
        truncated = torch.arange(rows) % 2 == 0
        return Feedback.from_logits(
            student,
            teacher,
            tokens,
            mask,
            values=torch.zeros(tokens.shape, dtype=dtype) if values is None else values,
            bootstrap=torch.zeros(rows, dtype=dtype) if bootstrap is None else bootstrap,
            truncated=truncated,
            context=FeedbackContext(
                **{
                    "reference": DenseTarget(0.9 * student[mask.bool()]),
                    "reward": (torch.arange(rows) % 2).to(dtype),
                    "group": torch.zeros(rows, dtype=torch.long),
                    "from_data": torch.zeros(rows, dtype=torch.bool),
                    "eos_ids": (0,),
                    **context,
                }
            ),
        )

    return make
