"""Shaping bounds the signal, keeps its sign, and reaches both the coefficient and the route."""

from __future__ import annotations

import math

import pytest
import torch

from opd_core.objective import shaping as module
from opd_core.objective.plan import build_plan
from opd_core.spec import MethodSpec
from opd_core.spec.variables.shaping import Shaping

R = torch.tensor([-50.0, -2.0, -1e-6, 0.0, 1e-6, 2.0, 50.0], dtype=torch.float64)


def shape(signal, shaping):
    """Of tokens that the student gives e^-1 and the teacher e^(r - 1)."""
    ours = torch.full_like(signal, -1.0)
    return module.shape(signal, shaping, student_logp=ours, teacher_logp=ours + signal)


def method(**fields) -> MethodSpec:
    return MethodSpec.model_validate({"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}, **fields})


@pytest.mark.parametrize("kind", ["none", "clip", "soft_log", "tanh"])
def test_shapes_are_odd_monotone_and_the_identity_near_zero(kind):
    shaped = shape(R, Shaping(kind=kind, limit=3.0))
    torch.testing.assert_close(shaped, -shape(-R, Shaping(kind=kind, limit=3.0)))
    assert (shaped.diff() > 0).all()
    assert shaped[4].item() == pytest.approx(1e-6, rel=1e-5)


def test_values():
    assert shape(R, Shaping(kind="clip", limit=3.0)).tolist() == [-3.0, -2.0, -1e-6, 0.0, 1e-6, 2.0, 3.0]
    assert shape(R, Shaping(kind="soft_log"))[-1].item() == pytest.approx(math.log(51))
    assert shape(R, Shaping(kind="tanh", limit=3.0))[-2].item() == pytest.approx(3 * math.tanh(2 / 3))


@pytest.mark.parametrize("exponent", [1.0, 5.0])
def test_power_is_the_difference_of_powers_of_probabilities(exponent):
    shaped = shape(R, Shaping(kind="power", exponent=exponent))  # the student gives e^-1, the teacher e^(r - 1)
    expected = [math.exp(exponent * (r - 1)) - math.exp(-exponent) for r in R.tolist()]
    assert shaped.tolist() == pytest.approx(expected)


def test_the_floor_bounds_what_a_token_can_lose_and_nothing_else():
    assert shape(R, Shaping(kind="floor", limit=3.0)).tolist() == [-3.0, *R.tolist()[1:]]


@pytest.mark.parametrize("routing", ["plain", "counterfactual"])
def test_the_shaped_signal_is_what_moves(routing, feedback):
    shaping = {"kind": "clip", "limit": 0.5}
    found = feedback()
    plan = build_plan(method(shaping=shaping, routing={"kind": routing}), found)
    torch.testing.assert_close(plan.coefficients, found.log_ratio[found.mask].clamp(-0.5, 0.5))
    if routing == "counterfactual":
        routed = plan.route_weights.sum(1)
        expected = -found.log_ratio[found.mask].clamp(-0.5, 0)
        assert (torch.isclose(routed, expected) | routed.eq(0)).all()
        assert float(routed.max()) > 0
    torch.testing.assert_close(plan.view.log_ratio, found.log_ratio)


def test_shaping_is_refused_where_it_means_nothing():
    assert "unshaped" in method(shaping={"kind": "clip"}, credit={"baseline": "expected"}).warnings()[0]
    with pytest.raises(ValueError, match="a direct loss has none"):
        MethodSpec.model_validate({"shaping": {"kind": "clip"}})
