"""What is recorded of a step is what the plan did."""

from __future__ import annotations

import pytest
import torch

from opd_core.diagnostics.records import Recorder, Text, choose_sequences, replies
from opd_core.objective.plan import PlanState, build_plan
from opd_core.recipes import load, names
from opd_core.rollout import imitated
from opd_core.runs import records
from opd_core.spec import MethodSpec

GATES = [{"kind": "tip", "share": 0.5}, {"kind": "window", "start": 1}]
CREDIT = {"estimator": "gae", "critic": {"form": "split"}}


def method_of(**changes) -> MethodSpec:
    """A log-ratio method with everything that is recorded by name."""
    return MethodSpec.model_validate(
        {
            "objective": {"route": "log_ratio"},
            "support": {"kind": "sampled"},
            "credit": CREDIT,
            "routing": {"kind": "counterfactual", "magnitude": "advantage"},
            "gates": GATES,
            **changes,
        }
    )


@pytest.fixture
def record(world, complete):
    """method -> (its plan, the recorded rows of all sequences as they come back from the wire)."""
    _, rollouts, own, theirs = world

    def make(method: MethodSpec, sequences=None):
        feedback = complete(method, own, theirs, rollouts)
        plan = build_plan(method, feedback)
        everything = range(len(rollouts))
        recorder = Recorder(
            rollouts=rollouts,
            feedback=feedback,
            plan=plan,
            state=PlanState(),
            student=own,
            sequences=everything if sequences is None else sequences,
            top_k=4,
            probe_states=0,
        )
        texts = [Text(n, "p", "c", None, None) for n in everything]
        return plan, records.decode(records.encode(recorder.rows(step=1, attempt=1, texts=texts)))

    return make


def packed(rows, name):
    return [token for row in rows for token in row[name]]


def same(found, expected: torch.Tensor) -> bool:
    return torch.allclose(torch.tensor(found), expected.float(), atol=1e-6)


def test_what_an_environment_said_stands_behind_the_action_before_it(world):
    student, rollouts, _, _ = world
    prompts = [ids[mask].tolist() for ids, mask in zip(rollouts.prompts, rollouts.prompt_mask, strict=True)]
    acted = [[True] * len(ids) for ids in rollouts.completions()]
    long = max(range(len(acted)), key=lambda row: len(acted[row]))
    acted[long][1] = acted[long][2] = False
    found = replies(imitated(prompts, rollouts.completions(), student, acted), [0, 1, 2, 3])
    ids = rollouts.completions()[long]
    assert found[long] == [ids[1:3], *[None] * (len(ids) - 3)]
    assert all(found[row] is None for row in range(4) if row != long)


def test_recorded_routes_are_the_plans_without_their_padding(record):
    plan, rows = record(load("cr-opd").method)
    ids, weights = packed(rows, "route_ids"), packed(rows, "route_weights")
    assert any(ids)
    for n in range(len(plan)):
        expected = {int(i): float(w) for i, w in zip(plan.route_ids[n], plan.route_weights[n], strict=True) if w != 0}
        assert dict(zip(ids[n], weights[n], strict=True)) == expected


def test_values_gates_and_components_are_recorded_by_name(record):
    plan, rows = record(method_of())
    mask = plan.mask
    assert same(packed(rows, "values"), plan.view.values[mask])
    assert same(packed(rows, "advantages"), plan.view.advantages[mask])
    for row in rows:
        assert row["gate_names"] == ["tip", "window"]
        assert row["component_names"] == list(plan.components)
    weights, parts = torch.tensor(packed(rows, "gate_weights")), torch.tensor(packed(rows, "component_values"))
    for n, name in enumerate(plan.view.gate_by_name):
        assert same(weights[:, n].tolist(), plan.view.gate_by_name[name][mask])
    for n, name in enumerate(plan.components):
        assert same(parts[:, n].tolist(), plan.components[name])
    assert same(packed(rows, "gates"), weights.prod(1))
    assert same(packed(rows, "coefficients"), parts.sum(1))
    assert weights.min() == 0.0
    assert weights.max() == 1.0
    assert parts.abs().sum(0).min() > 0


def test_some_sequences_keep_their_own_numbers(record):
    _, rows = record(method_of())
    _, some = record(method_of(), sequences=[1, 3])
    for name in ("values", "gate_weights", "component_values"):
        assert [row[name] for row in some] == [rows[1][name], rows[3][name]]
        assert rows[0][name] != rows[1][name]


def test_a_direct_method_has_no_value_and_no_component(record):
    _, rows = record(load("forward-kl").method)
    for row in rows:
        assert row["values"] is None
        assert (row["gate_names"], row["component_names"]) == ([], [])
        assert row["gate_weights"] == row["component_values"] == [[]] * row["length"]
        assert set(row["coefficients"]) == {0.0}


def test_favourites_are_scored_at_the_temperatures_of_the_feedback(record):
    _, rows = record(
        MethodSpec.model_validate({"objective": {"route": "direct", "temperature": 2.0, "teacher_temperature": 0.5}})
    )
    agreed = 0
    for who, ids, logp in (
        ("student", "student_top_ids", "student_top_logp"),
        ("teacher", "teacher_top_ids", "teacher_top_logp"),
    ):
        columns = (packed(rows, name) for name in ("token_ids", f"logp_{who}", ids, logp))
        for token, own, favourites, scores in zip(*columns, strict=True):
            if token in favourites:
                agreed += 1
                assert scores[favourites.index(token)] == pytest.approx(own, abs=1e-5)
    assert agreed > 10


@pytest.mark.parametrize("name", names())
def test_every_recipe_can_be_recorded(name, record):
    plan, rows = record(load(name).method)
    assert [row["n"] for row in rows] == [0, 1, 2, 3]
    assert (rows[0]["values"] is None) == (plan.view.values is None)
    assert sum(row["length"] for row in rows) == len(plan)


def test_chosen_sequences_are_a_uniform_sample_of_their_own():
    assert choose_sequences(0, 1, 100, 8) == choose_sequences(0, 1, 100, 8)
    assert choose_sequences(0, 1, 100, 8) != choose_sequences(0, 2, 100, 8)
    assert choose_sequences(0, 1, 3, 8) == [0, 1, 2]
    counts = torch.zeros(20)
    for step in range(2000):
        counts[choose_sequences(0, step, 20, 4)] += 1
    assert float((counts / 2000 - 0.2).abs().max()) < 0.04
