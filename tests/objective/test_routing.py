"""CR-OPD: who may receive the mass, how much, and the exact force that moves it."""

from __future__ import annotations

import pytest
import torch

from opd_core.objective import feedback as feedback_module
from opd_core.objective.feedback import Feedback
from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.objective.routing import counterfactual_route
from opd_core.objective.targets import chunks
from opd_core.recipes import load
from opd_core.spec import MethodSpec

SETTINGS = {"student_top_k": 5, "teacher_top_k": 4, "weighting": "teacher"}


@pytest.fixture
def rows(generator):
    student = torch.randn(200, 9, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)
    teacher = torch.randn(200, 9, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)
    sampled = torch.randint(9, (200,), generator=generator)
    return student, teacher, sampled


def method(**routing) -> MethodSpec:
    credit = routing.pop("credit", {})
    return MethodSpec.model_validate(
        {
            "objective": {"route": "log_ratio"},
            "support": {"kind": "sampled"},
            "credit": credit,
            "routing": {"kind": "counterfactual", "student_top_k": 5, "teacher_top_k": 4, **routing},
        }
    )


def by_definition(student, teacher, y, weighting):
    """One row, token by token."""
    p, pi = teacher.exp(), student.exp()
    if teacher[y] >= student[y]:
        return torch.zeros_like(p)
    rho = torch.zeros_like(p)
    for v in range(len(p)):
        supported = int((p > p[v]).sum()) < SETTINGS["teacher_top_k"]
        reachable = int((pi > pi[v]).sum()) < SETTINGS["student_top_k"]
        if v != y and supported and reachable and p[v] > pi[v]:
            rho[v] = {"teacher": p[v], "deficit": p[v] - pi[v], "geometric": (p[v] * pi[v]).sqrt()}[weighting]
    return rho / rho.sum() if float(rho.sum()) > 0 else rho


@pytest.mark.parametrize("weighting", ["teacher", "deficit", "geometric"])
def test_routes_equal_their_definition(weighting, rows):
    student, teacher, sampled = rows
    route = counterfactual_route(student, teacher, sampled, **{**SETTINGS, "weighting": weighting})
    assert route.ids.shape == (200, 4)
    dense = torch.zeros_like(student).scatter_(1, route.ids, route.weights)
    expected = torch.stack([by_definition(*row, weighting) for row in zip(student, teacher, sampled, strict=True)])
    torch.testing.assert_close(dense, expected, atol=1e-12, rtol=0)
    assert torch.equal(route.active, (teacher - student).gather(1, sampled[:, None])[:, 0] < 0)
    totals = route.weights.sum(1)
    assert ((totals - 1).abs().lt(1e-12) | totals.eq(0)).all()
    assert bool(route.empty.any())
    assert bool((~route.empty & route.active).any())


@pytest.fixture
def wide(rows):
    """The 200 rows as one sequence, with its feedback."""
    student, teacher, sampled = rows
    mask = torch.ones(1, 200, dtype=torch.bool)
    return student, teacher, sampled, Feedback.from_logits(student[None], teacher[None], sampled[None], mask)


@pytest.mark.parametrize("magnitude", ["log_ratio", "advantage"])
@pytest.mark.parametrize("credit", [{}, {"baseline": "expected"}, {"estimator": "discounted", "gamma": 0.8}])
def test_force_is_magnitude_times_rho_minus_y(magnitude, credit, wide):
    student, teacher, sampled, feedback = wide
    plan = build_plan(method(magnitude=magnitude, credit=credit), feedback)
    pushed = force(plan, student)
    plain = force(build_plan(method(strength=0.0, magnitude="advantage", credit=credit), feedback), student)
    r = (teacher - student).gather(1, sampled[:, None])[:, 0]
    advantage = plan.view.advantages[0]
    moved = r if magnitude == "log_ratio" else advantage
    routed = 0
    for n in range(200):
        rho = by_definition(student[n], teacher[n], int(sampled[n]), "teacher")
        if r[n] < 0 and moved[n] < 0 and float(rho.sum()) > 0:
            rho[sampled[n]] -= 1
            torch.testing.assert_close(pushed[n], moved[n].abs() * rho, atol=1e-12, rtol=0)
            routed += 1
        elif magnitude == "advantage" or r[n] >= 0:
            torch.testing.assert_close(pushed[n], plain[n], atol=1e-12, rtol=0)
    assert routed > 20
    assert plan.statistics["route_triggered"] == pytest.approx(float(((r < 0) & (moved < 0)).double().mean()))
    assert 0 < plan.statistics["route_empty"] < 1


def test_strength_mixes_the_route_with_the_plain_force(wide):
    student, _, _, feedback = wide
    forces = {s: force(build_plan(method(strength=s), feedback), student) for s in (0.0, 0.25, 1.0)}
    torch.testing.assert_close(forces[0.25], 0.75 * forces[0.0] + 0.25 * forces[1.0])
    torch.testing.assert_close(forces[0.0], force(build_plan(load("tml-opd").method, feedback), student))
    assert float((forces[1.0] - forces[0.0]).abs().max()) > 0.1


def test_abstaining_says_nothing_where_nothing_qualifies(wide):
    student, teacher, sampled, feedback = wide
    pushed = force(build_plan(method(fallback="abstain"), feedback), student)
    kept = force(build_plan(method(fallback="plain"), feedback), student)
    empty = counterfactual_route(student, teacher, sampled, **SETTINGS).empty
    assert float(pushed[empty].abs().max()) < 1e-14
    assert float(kept[empty].abs().max()) > 0.01
    torch.testing.assert_close(pushed[~empty], kept[~empty])


def test_routes_do_not_depend_on_the_chunk(wide, monkeypatch):
    student, _, _, feedback = wide
    whole = force(build_plan(load("cr-opd").method, feedback), student)
    monkeypatch.setattr(feedback_module, "chunks", lambda n, v, **_: chunks(n, v, budget=7 * v))
    assert torch.equal(force(build_plan(load("cr-opd").method, feedback), student), whole)


def test_baseline_does_not_change_the_expected_force(generator):
    student = torch.randn(7, generator=generator, dtype=torch.float64)
    teacher = torch.randn(7, generator=generator, dtype=torch.float64)
    states = [x.expand(7, 1, 7) for x in (student, teacher)]
    found = Feedback.from_logits(*states, torch.arange(7)[:, None], torch.ones(7, 1))
    expected = [
        (student.softmax(-1)[:, None] * force(build_plan(load(name).method, found), states[0][:, 0])).sum(0)
        for name in ("tml-opd", "vopd")
    ]
    torch.testing.assert_close(*expected)


def test_the_expected_baseline_is_taken_off(wide):
    student, teacher, _, feedback = wide
    k = (student.exp() * (student - teacher)).sum(-1)
    plan = build_plan(load("vopd").method, feedback)
    torch.testing.assert_close(plan.coefficients, feedback.log_ratio[0] + k)
    torch.testing.assert_close(plan.view.advantages[0], plan.coefficients)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": {"route": "direct"}, "routing": {"kind": "counterfactual"}}, "a direct loss has none"),
        ({"objective": {"route": "direct"}, "credit": {"estimator": "return_to_go"}}, "a direct loss has none"),
    ],
)
def test_senseless_combinations_are_refused_with_the_reason(changes, words):
    with pytest.raises(ValueError, match=words):
        MethodSpec.model_validate(changes)


def test_crediting_the_future_warns_of_early_stopping():
    plain = {"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}}
    crediting = MethodSpec.model_validate({**plain, "credit": {"estimator": "return_to_go"}})
    assert "ending early" in crediting.warnings()[0]
    assert MethodSpec.model_validate(plain).warnings() == []
