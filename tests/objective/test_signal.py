"""The sampled-token signal of each divergence, and the direct single-sample estimators."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from oracle import gradient

from opd_core.objective.feedback import Feedback
from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.objective.signal import signal
from opd_core.spec import MethodSpec
from opd_core.spec.variables.objective import Divergence

V = 8


@pytest.fixture
def state(generator):
    """One state with each of its tokens sampled once."""
    student, teacher = (torch.randn(V, generator=generator, dtype=torch.float64) for _ in range(2))
    rows = [x.expand(V, 1, V) for x in (student, teacher)]
    return student, teacher, Feedback.from_logits(*rows, torch.arange(V)[:, None], torch.ones(V, 1))


def expected_force(method, state):
    student, _, found = state
    return (student.softmax(-1)[:, None] * force(build_plan(method, found), student.expand(V, V))).sum(0)


@pytest.mark.parametrize("kind", get_args(Divergence))
def test_in_expectation_the_policy_gradient_is_that_of_the_divergence(kind, state):
    objective = {"route": "log_ratio", "divergence": kind, "beta": 0.3, "alpha": 0.2, "order": 0.6}
    method = MethodSpec.model_validate({"objective": objective, "support": {"kind": "sampled"}})
    parameter = {"jsd": 0.3, "alpha": 0.6}.get(kind, 0.2)
    expected = -gradient(kind, state[0], state[1], parameter)
    torch.testing.assert_close(expected_force(method, state), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", get_args(Divergence))
def test_signals_vanish_at_the_teacher_and_stay_finite(kind):
    extreme = torch.tensor([-300.0, -50.0, 0.0, 50.0, 300.0])
    found = signal(kind, extreme, 0.3)
    assert float(found[2]) == 0.0
    assert torch.isfinite(found).all()
    assert (found.diff() >= 0).all()


@pytest.mark.parametrize(("estimator", "kind"), [("k2", "reverse_kl"), ("k3", "forward_kl")])
def test_direct_estimators_have_the_gradient_they_claim(estimator, kind, state):
    method = MethodSpec.model_validate(
        {"objective": {"route": "direct", "divergence": kind}, "support": {"kind": "sampled", "estimator": estimator}}
    )
    torch.testing.assert_close(expected_force(method, state), -gradient(kind, state[0], state[1]), atol=1e-12, rtol=0)


def test_k3_of_a_token_the_student_never_writes_is_bounded(state):
    student = torch.zeros(1, 1, 4)
    student[..., 0] = -200.0
    found = Feedback.from_logits(student, torch.zeros(1, 1, 4), torch.zeros(1, 1).long(), torch.ones(1, 1))
    method = MethodSpec.model_validate(
        {"objective": {"route": "direct"}, "support": {"kind": "sampled", "estimator": "k3"}}
    )
    assert torch.isfinite(force(build_plan(method, found), student[0])).all()


@pytest.mark.parametrize(
    ("objective", "support", "words"),
    [
        ({"route": "direct"}, {"estimator": "k1"}, "expected gradient is zero"),
        ({"route": "direct", "divergence": "forward_kl"}, {"estimator": "k2"}, "gradient of reverse_kl"),
        ({"route": "direct", "divergence": "reverse_kl"}, {"estimator": "k3"}, "gradient of forward_kl"),
        ({"route": "log_ratio"}, {"estimator": "k2"}, "blind to the sign"),
        ({"route": "log_ratio"}, {"estimator": "k3"}, "blind to the sign"),
    ],
)
def test_estimators_are_used_only_where_they_have_the_gradient_they_claim(objective, support, words):
    with pytest.raises(ValueError, match=words):
        MethodSpec.model_validate({"objective": objective, "support": {"kind": "sampled", **support}})
