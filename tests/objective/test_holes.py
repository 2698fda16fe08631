"""Tokens that an environment put into a completion: they carry no force and take no time, whatever the method.

The same batch with such tokens anywhere between the actions and without them, in float64: coefficients, routes, weights
and gradients of the actions are the same, and the gradient on the logits at the others is exactly zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from opd_core.objective.feedback import Feedback
from opd_core.objective.loss import plan_loss
from opd_core.objective.plan import PlanState, build_plan
from opd_core.recipes import load, names
from opd_core.spec import MethodSpec
from opd_core.spec.variables.gates import Gate

LENGTHS = (5, 3, 1, 4)
VOCABULARY = 9
# Of each row where its actions stand among eleven positions: an environment speaks between them, also before the first
# and behind the last.
PLACES = ((0, 1, 4, 5, 8), (2, 3, 9), (4,), (0, 3, 4, 7))
WIDTH = 11


def compact():
    """[B, T] fields of a ragged batch whose masks are beginnings of ones."""
    generator = torch.Generator().manual_seed(11)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows, longest = len(LENGTHS), max(LENGTHS)
    mask = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    return {
        "student": 1.5 * draw(rows, longest, VOCABULARY),
        "teacher": 1.5 * draw(rows, longest, VOCABULARY),
        "tokens": torch.randint(VOCABULARY, (rows, longest), generator=generator),
        "values": draw(rows, longest),
        "behaviour_logp": -draw(rows, longest).abs(),
    }, mask


def with_holes(fields, mask):
    """The same actions at PLACES; everything else is noise that nothing may look at."""
    wide = torch.zeros((len(LENGTHS), WIDTH), dtype=torch.bool)
    for row, places in enumerate(PLACES):
        wide[row, list(places)] = True
    generator = torch.Generator().manual_seed(12)
    found = {}
    for name, field in fields.items():
        shape = (*wide.shape, *field.shape[2:])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        found[name] = torch.randint(VOCABULARY, shape, generator=generator) if name == "tokens" else 3.0 * noise
        found[name][wide] = field[mask]
    return found, wide


def planned(method, deliver, fields, mask):
    """The plan of a batch, and the gradient of its loss on all logits [B, T, V]."""
    fields = dict(fields)
    behaviour = torch.where(mask, fields.pop("behaviour_logp"), 0.0)
    objective = method.objective
    feedback: Feedback = deliver(
        **fields,
        mask=mask,
        bootstrap=torch.tensor([0.7, 0.0, -0.4, 0.0], dtype=torch.float64),
        behaviour_logp=behaviour,
        group=torch.tensor([0, 0, 1, 1]),
        from_data=torch.tensor([False, True, False, False]) if "origin" in method.needs else None,
        temperature=objective.temperature,
        teacher_temperature=objective.effective_teacher_temperature,
        special_ids=(3,),
    )
    running = {"reward_mean": -0.3, "value_mean": -0.5, "value_std": 0.8}
    state = PlanState(progress=0.5, running=running, generator=torch.Generator().manual_seed(5))
    plan = build_plan(method, feedback, state)
    logits = fields["student"].clone().requires_grad_(True)
    loss = (plan.weights * plan_loss(plan, logits[mask])).sum() / plan.normalizer
    loss.backward()
    return plan, logits.grad


def assert_no_hole_is_seen(method, deliver):
    fields, mask = compact()
    plan, gradient = planned(method, deliver, fields, mask)
    holed_fields, holed_mask = with_holes(fields, mask)
    holed, holed_gradient = planned(method, deliver, holed_fields, holed_mask)
    exact = {"rtol": 0, "atol": 1e-12}
    assert plan.components.keys() == holed.components.keys()
    for name, part in plan.components.items():
        torch.testing.assert_close(holed.components[name], part, **exact)
    torch.testing.assert_close(holed.weights, plan.weights, **exact)
    torch.testing.assert_close(holed.route_weights, plan.route_weights, **exact)
    assert torch.equal(holed.route_ids, plan.route_ids)
    assert holed.normalizer == pytest.approx(plan.normalizer, abs=1e-12)
    assert holed.statistics.keys() == plan.statistics.keys()
    for name, value in plan.statistics.items():
        assert holed.statistics[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    for field in ("log_ratio", "returns", "advantages", "gates", "values"):
        of_all, of_actions = getattr(holed.view, field), getattr(plan.view, field)
        if of_actions is not None:
            torch.testing.assert_close(of_all[holed_mask], of_actions[mask], **exact)
            assert not bool(of_all[~holed_mask].any()), field
    if plan.critic is not None:
        torch.testing.assert_close(holed.critic.values, plan.critic.values, **exact)
        assert torch.equal(holed.critic.weights, plan.critic.weights)
    torch.testing.assert_close(holed_gradient[holed_mask], gradient[mask], **exact)
    assert not bool(holed_gradient[~holed_mask].any())
    return gradient


@pytest.mark.parametrize("name", names())
def test_every_recipe(name, deliver):
    assert bool(assert_no_hole_is_seen(load(name).method, deliver).any())


CREDITS = [
    *({"estimator": name} for name in ("immediate", "return_to_go")),
    *({"estimator": name, "gamma": 0.8} for name in ("discounted", "normalised")),
    *({"estimator": "discounted", "gamma": 0.8, "baseline": b} for b in ("expected", "batch", "position", "group")),
    *(
        {"estimator": "gae", "gamma": 0.9, "lam": 0.7, "critic": {"form": form, "end_of_sequence": end}}
        for form in ("value", "split", "differential", "per_token")
        for end in ("return", "immediate")
        if (form, end) != ("per_token", "immediate")
    ),
]


@pytest.mark.parametrize("credit", CREDITS, ids=lambda credit: "-".join(map(str, credit.values())))
def test_every_credit_estimator(credit, deliver):
    method = {"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}, "credit": credit}
    assert_no_hole_is_seen(MethodSpec.model_validate(method), deliver)


GATES = {
    "entropy": {"threshold": 1.5},
    "eopd": {"threshold": 1.5, "k": 3},
    "tip": {"share": 0.5},
    "ta_opd": {"share": 0.5, "k": 3},
    "selectkd": {"k": 3},
    "overlap": {"k": 3, "threshold": 0.5},
    "window": {"start": 1, "stop": 3},
    "prefix_weight": {"gamma": 0.5},
    "prune": {"k": 3, "threshold": 0.7, "decay": 0.3},
    "fire": {"drop": 0.25},
    "scope": {},
    "agreement": {},
    "sequence": {},
    "random": {"share": 0.5},
}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("control", ["none", "random"])
def test_every_gate(kind, control, deliver):
    if kind == "random" and control == "random":
        return
    gate = {"kind": kind, **GATES[kind], **({} if kind == "random" else {"control": control})}
    method = {
        "objective": {"route": "log_ratio"},
        "support": {"kind": "sampled"},
        "credit": {"estimator": "discounted", "gamma": 0.8},
        "gates": [gate],
    }
    assert_no_hole_is_seen(MethodSpec.model_validate(method), deliver)


def test_the_table_holds_every_gate_and_a_window_counts_actions_from_either_side(deliver):
    kinds = {member.model_fields["kind"].default for member in get_args(get_args(Gate)[0])}
    assert set(GATES) == kinds
    method = {
        "objective": {"route": "log_ratio"},
        "support": {"kind": "sampled"},
        "gates": [{"kind": "window", "start": 0, "stop": 2, "counted_from": "end"}],
    }
    assert_no_hole_is_seen(MethodSpec.model_validate(method), deliver)


def test_a_turn_that_ends_is_no_end_of_the_sequence(deliver):
    fields, mask = with_holes(*compact())
    feedback = deliver(
        **{name: field for name, field in fields.items() if name != "behaviour_logp"}, mask=mask, eos_ids=(0,)
    )
    feedback = replace(feedback, tokens=torch.zeros_like(feedback.tokens))
    assert feedback.ends.nonzero().tolist() == [[row, places[-1]] for row, places in enumerate(PLACES)]
