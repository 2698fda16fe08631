"""A recorded step, planned again: what is said to be exact is exact, and the rest says why it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_core.diagnostics.exactness import exactness
from opd_core.diagnostics.recorded import Recorded
from opd_core.diagnostics.records import BatchFacts, Recorder, Text, plan_columns
from opd_core.diagnostics.replan import replan
from opd_core.objective.feedback import MissingFeedback, unpack
from opd_core.objective.loss import force
from opd_core.objective.plan import PlanState, build_plan
from opd_core.recipes import adapt, load, names
from opd_core.runs import records

SEED = 7
SPECIAL = (3, 11)
EVERYTHING = 1000  # more than the tiny vocabulary


def state() -> PlanState:
    """As the run saw it at that step."""
    running = {"reward_mean": -0.4, "value_mean": -1.0, "value_std": 0.5}
    return PlanState(progress=0.25, running=running, generator=torch.Generator().manual_seed(SEED))


@pytest.fixture
def told(world, complete):
    """method -> the step's real feedback, with everything that a service's trainer knows."""
    _, rollouts, own, theirs = world

    def make(method):
        found = complete(method, own, theirs, rollouts)
        sampled = own.log_probs(1.0).gather(1, found.tokens[found.mask][:, None])[:, 0]
        context = replace(
            found.context,
            behaviour_logp=unpack(sampled + 0.3 * torch.sin(torch.arange(len(sampled))), found.mask),
            eos_ids=(1,),
            special_ids=SPECIAL,
        )
        return replace(found, context=context)

    return make


@pytest.fixture
def record(world, told):
    """method -> the rows of a step that was trained under it, as they come back from the wire."""
    _, rollouts, own, _ = world

    def make(method, *, top_k=EVERYTHING, sequences=(0, 1, 2, 3)):
        feedback = told(method)
        recorder = Recorder(
            rollouts=rollouts,
            feedback=feedback,
            plan=build_plan(method, feedback, state()),
            state=state(),
            student=own,
            sequences=sequences,
            top_k=top_k,
            probe_states=0,
        )
        texts = [Text(5, "p", "c", "a", bool(n % 2), "data" if n == 1 else "student") for n in range(len(rollouts))]
        return records.decode(records.encode(recorder.rows(step=1, attempt=1, texts=texts)))

    return make


def again(rows, own, method):
    recorded = Recorded(rows, BatchFacts.read(rows[0]["batch"]))
    return recorded, replan(recorded, own=own, method=method, gate_seed=SEED)


def columns_of(plan, sequences):
    """The plan's columns of some of its sequences, field of exactness -> values, one list per sequence."""
    lengths = plan.mask.sum(1).tolist()
    rows = plan_columns(plan, torch.arange(len(plan)), lengths)
    return [fields_of(rows[n]) for n in sequences]


def fields_of(row):
    """Field of exactness -> its numbers; routes as mappings."""
    fields = {
        "log_ratio": row["log_ratio"],
        "return": row["returns"],
        "value": row["values"] or [],
        "advantage": row["advantages"],
        "gate": row["gates"],
        "coefficient": row["coefficients"],
        "route": [
            dict(zip(ids, w, strict=True)) for ids, w in zip(row["route_ids"], row["route_weights"], strict=True)
        ],
    }
    for at, name in enumerate(row["gate_names"]):
        fields[f"gate:{name}"] = [weights[at] for weights in row["gate_weights"]]
    return fields


def equal(found, expected) -> bool:
    if isinstance(expected, dict):
        some = {token for side in (found, expected) for token, weight in side.items() if abs(weight) > 1e-6}
        return all(equal(found.get(token, 0.0), expected.get(token, 0.0)) for token in some)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(equal, found, expected))
    return found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def wrong_fields(result, expected):
    """Fields that differ from what the real feedback gives."""
    found = [fields_of(row["plan"]) for row in result.rows]
    return {
        field
        for mine, real in zip(found, expected, strict=True)
        for field in real
        if not equal(mine[field], real[field])
    }


@pytest.mark.parametrize("name", names())
def test_the_runs_own_method_gives_what_was_recorded(name, record):
    own = load(name).method
    rows = record(own)
    _, result = again(rows, own, own)
    assert not wrong_fields(result, [fields_of(row) for row in rows])
    assert not any(result.replanned.values())
    assert not any(result.recorded.values())
    for row, found in zip(rows, result.rows, strict=True):
        assert found["plan"]["component_names"] == row["component_names"]
        assert equal(found["plan"]["component_values"], row["component_values"])


@pytest.mark.parametrize("name", names())
def test_with_the_whole_vocabulary_any_method_is_planned_as_from_the_real_feedback(name, record, told):
    own, method = load("gae-cr-opd").method, load(name).method
    rows = record(adapt("gae-cr-opd", {"regularizers": [{"kind": "reference_kl", "weight": 0.1}]}))
    _, result = again(rows, own, method)
    wrong = wrong_fields(result, columns_of(build_plan(method, told(method), state()), range(4)))
    assert all(result.replanned[field] for field in wrong)
    # Only a critic of another form is no exact one.
    assert (not wrong) or method.credit.critic.form != own.credit.critic.form


@pytest.mark.parametrize("own_name", ["gae-opd", "forward-kl", "apo"])
@pytest.mark.parametrize("name", names())
def test_what_is_marked_exact_is_exact(name, own_name, record, told):
    own, method = load(own_name).method, load(name).method
    sequences = (1, 2)
    rows = record(own, top_k=12, sequences=sequences)
    if "reference" in method.needs and "reference" not in own.needs:
        rows = [{**row, "logp_reference": None} for row in rows]
        with pytest.raises(MissingFeedback, match="the student at the start of the run"):
            again(rows, own, method)
        return
    _, result = again(rows, own, method)
    real = build_plan(method, told(method), state())
    wrong = wrong_fields(result, columns_of(real, sequences))
    assert {field for field in wrong if not result.replanned[field]} == set()


def test_reasons_name_what_is_missing(record):
    own = load("tml-opd").method
    rows = record(own, top_k=12, sequences=(1, 2))

    def reasons(name):
        return again(rows, own, load(name).method)[1].replanned

    plain = reasons("tml-opd")
    assert not any(plain[field] for field in plain if field != "change")
    assert "flat" in plain["change"][0]
    half = reasons("tip")
    assert "taken from 2 of its 4 sequences" in half["gate:tip"][0]
    assert half["gate"] == half["gate:tip"]
    assert not half["log_ratio"]
    assert any("flat" in reason for reason in half["force"])
    learned = reasons("gae-opd")
    assert any("no critic was trained" in reason for reason in learned["coefficient"])
    assert learned["value"]
    assert not learned["return"]
    # 12 favourites were recorded, and two special tokens may be among them.
    routed = reasons("cr-opd")
    assert any("it looks at 16 favourites" in reason for reason in routed["route"])
    assert not routed["coefficient"]
    small = again(rows, own, adapt("cr-opd", {"routing": {"student_top_k": 8, "teacher_top_k": 8}}))[1].replanned
    assert not small["route"]
    assert not small["force"]


def test_another_critic_and_an_older_record_are_only_approximate(record):
    own = load("gae-opd").method
    rows = record(own)
    taught = again(rows, own, adapt("gae-opd", {"credit": {"critic": {"form": "value"}}}))[1].replanned
    assert any("taught under the run's own method" in reason for reason in taught["advantage"])
    recorded = Recorded(rows, BatchFacts.read(rows[0]["batch"]), complete=False)
    old = replan(recorded, own=own, method=own, gate_seed=SEED).replanned
    assert any("an earlier version" in reason for reason in old["value"])
    without = [{**row, "logp_behaviour": None} for row in rows]
    weighted = again(without, own, adapt("tml-opd", {"importance": {"kind": "truncated"}}))[1].replanned
    assert any("sampled was not recorded" in reason for reason in weighted["coefficient"])


def test_a_critic_of_another_form_values_the_same_states(record, told):
    """V is one number whatever the critic was asked for: in another form's words it comes back as it was."""
    own = adapt("gae-opd", {"credit": {"critic": {"form": "split"}, "gamma": 0.8}})
    rows = record(own)
    expected = [row["values"] for row in rows]
    for form in ("value", "per_token", "differential"):
        method = adapt("gae-opd", {"credit": {"critic": {"form": form}, "gamma": 0.8}})
        _, result = again(rows, own, method)
        assert equal([row["plan"]["values"] for row in result.rows], expected), form


def test_another_temperature_is_read_from_the_favourites(record, told):
    own = load("tml-opd").method
    warm = adapt("tml-opd", {"objective": {"temperature": 2.0}})
    _, whole = again(record(own), own, warm)
    assert not wrong_fields(whole, columns_of(build_plan(warm, told(warm), state()), range(4)))
    assert not any(whole.replanned.values())
    _, some = again(record(own, top_k=12), own, warm)
    assert any("another softmax temperature" in reason for reason in some.replanned["log_ratio"])


@pytest.mark.parametrize("name", ["cr-opd", "forward-kl", "topk-tail", "aopd", "tip"])
def test_forces_are_those_of_both_plans(name, record, told, world):
    _, _, student, _ = world
    own, method = load("vopd").method, load(name).method
    _, result = again(record(own), own, method)
    logits = student.head(student.hidden)
    pi = logits.log_softmax(-1).exp()
    for which, one in (("recorded", own), ("replanned", method)):
        push = force(build_plan(one, told(one), state()), logits)
        moved = pi * (push - (pi * push).sum(1, keepdim=True))
        tokens = [
            (ids, forces, changes)
            for row in result.rows
            for ids, forces, changes in zip(
                row["force_ids"], row[f"force_{which}"], row[f"change_{which}"], strict=True
            )
        ]
        for n, (ids, forces, changes) in enumerate(tokens):
            assert len(set(ids)) == len(ids)
            assert forces == pytest.approx(push[n, ids].tolist(), abs=1e-5)
            assert changes == pytest.approx(moved[n, ids].tolist(), abs=1e-5)


def test_the_sampled_token_comes_first_and_unknown_places_are_marked(record):
    own = load("forward-kl").method
    rows = record(own, top_k=2)
    _, result = again(rows, own, own)
    for row, found in zip(rows, result.rows, strict=True):
        for token, ids in zip(row["token_ids"], found["force_ids"], strict=True):
            known = [one for one in ids if one >= 0]
            assert ids[0] == token
            assert len(set(known)) == len(known) <= 5
            assert ids[len(known) :] == [-1] * (len(ids) - len(known))


def test_what_is_left_of_each_model_is_spread_evenly(record):
    own = load("tml-opd").method
    rows = record(own, top_k=4)
    recorded, _ = again(rows, own, own)
    for target in (recorded.student, recorded.teacher):
        logp = target.log_probs(1.0)
        assert torch.allclose(logp.exp().sum(1), torch.ones(len(target)), atol=1e-5)
        for n in range(len(target)):
            known = target.ids[n][target.keep[n]]
            assert torch.equal(logp[n, known], target.logp[n][target.keep[n]])
            others = torch.ones(logp.shape[1], dtype=torch.bool)
            others[known] = False
            assert len(logp[n, others].unique()) == 1
    assert torch.allclose(recorded.student.log_probs(2.0).exp().sum(1), torch.ones(len(recorded.student)), atol=1e-5)


def test_an_unverified_step_cannot_be_planned_with_rewards(record):
    own = load("tml-opd").method
    rows = [{**row, "correct": None} for row in record(own)]
    with pytest.raises(MissingFeedback, match="verifier's rewards"):
        again(rows, own, load("kdrl").method)


def test_every_gate_and_every_recipe_has_its_reasons(record):
    own = load("tml-opd").method
    rows = record(own, top_k=12, sequences=(1, 2))
    known = Recorded(rows, BatchFacts.read(rows[0]["batch"])).known()
    for name in names():
        method = load(name).method
        found = exactness(method, own, known)
        assert {f"gate:{gate.kind}" for gate in method.gates} <= set(found)
