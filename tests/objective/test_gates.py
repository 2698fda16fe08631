"""Gates against their definitions, token by token, and what all of them have in common."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from opd_core.objective.gates import apply_gates
from opd_core.objective.gates.seen import Seen
from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.objective.state import PlanState
from opd_core.spec import MethodSpec
from opd_core.spec.variables.gates import Gate

KINDS = [gate.model_fields["kind"].default for gate in get_args(get_args(Gate)[0])]
LOG_RATIO = {"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}}


@pytest.fixture
def world(generator, deliver):
    """Six rollouts of two prompts, ragged, V = 11."""
    student = torch.randn(6, 8, 11, generator=generator, dtype=torch.float64) * 2
    teacher = student + torch.randn(6, 8, 11, generator=generator, dtype=torch.float64)
    tokens = torch.randint(11, (6, 8), generator=generator)
    lengths = torch.tensor([8, 3, 5, 1, 8, 6])
    mask = torch.arange(8) < lengths[:, None]
    reward = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    return deliver(student, teacher, tokens, mask, reward=reward, group=group)


def method(*gates, **fields) -> MethodSpec:
    return MethodSpec.model_validate({**LOG_RATIO, "gates": list(gates), **fields})


def weights(gate, world, state=None, advantages=None):
    spec = method(gate)
    advantages = world.log_ratio if advantages is None else advantages
    return apply_gates(spec.gates, Seen(world, advantages, state or PlanState())).weights


def tokens_of(world):
    """(row, position) of every completion token, in packed order."""
    return world.mask.nonzero().tolist()


@pytest.mark.parametrize("of", ["teacher", "student"])
@pytest.mark.parametrize("keep", ["above", "below"])
def test_entropy(of, keep, world):
    found = weights({"kind": "entropy", "of": of, "keep": keep, "threshold": 1.2}, world)
    target = world.teacher if of == "teacher" else world.student
    for n, (b, t) in enumerate(tokens_of(world)):
        p = target[n : n + 1].log_probs(1.0)[0].exp()
        above = -float((p * p.log()).sum()) > 1.2
        assert float(found[b, t]) == float(above == (keep == "above"))
    assert 0 < float(found.sum()) < int(world.mask.sum())


def test_eopd_adds_forward_kl_where_the_teacher_is_unsure_and_silences_nobody(world):
    gated = build_plan(method({"kind": "eopd", "threshold": 1.2, "weight": 0.7, "k": 4}), world)
    plain = build_plan(method(), world)
    student = world.student.log_probs(1.0)
    difference = force(gated, student) - force(plain, student)
    unsure = world.teacher_entropy[world.mask] > 1.2
    only = MethodSpec.model_validate({"support": {"kind": "teacher_top_k", "k": 4, "remainder": "tail"}})
    expected = 0.7 * force(build_plan(only, world), student) * unsure[:, None]
    torch.testing.assert_close(difference, expected, atol=1e-12, rtol=0)
    assert gated.statistics["eopd_added"] == pytest.approx(float(unsure.double().mean()))
    assert gated.statistics["gate_eopd_share"] == 1.0
    assert torch.equal(gated.view.gates, world.mask.double())


def test_tip(world):
    found = weights({"kind": "tip", "share": 0.3}, world)[world.mask]

    def scaled(x):
        return (x - x.min()) / (x.max() - x.min())

    h, d = scaled(world.student_entropy[world.mask]), scaled(world.kl[world.mask])
    score = (h + d - h * d).tolist()
    kept = sorted(range(len(score)), key=lambda n: -score[n])[: math.ceil(0.3 * len(score))]
    assert found.nonzero()[:, 0].tolist() == sorted(kept)
    assert float(found.sum()) == math.ceil(0.3 * len(score))


def test_ta_opd(world):
    found = weights({"kind": "ta_opd", "share": 0.25, "k": 3}, world)[world.mask]
    compatible = []
    for n in range(len(found)):
        favourites = world.student[n : n + 1].log_probs(1.0)[0].topk(3).indices
        compatible.append(float(world.teacher[n : n + 1].log_probs(1.0)[0].exp()[favourites].sum()))

    def scaled(values):
        ordered = sorted(values)
        low, high = (ordered[round(q * (len(ordered) - 1))] for q in (0.05, 0.95))
        return [min(1.0, max(0.0, (value - low) / (high - low))) for value in values]

    disagreement = scaled(world.kl[world.mask].tolist())
    score = [a * b for a, b in zip(disagreement, scaled(compatible), strict=True)]
    kept = sorted(range(len(score)), key=lambda n: -score[n])[: math.ceil(0.25 * len(score))]
    assert found.nonzero()[:, 0].tolist() == sorted(kept)


def test_selectkd(world):
    found = weights({"kind": "selectkd", "k": 2, "otherwise": 0.05}, world)[world.mask]
    for n, weight in enumerate(found.tolist()):
        favourite = int(world.student[n : n + 1].log_probs(1.0)[0].argmax())
        verified = favourite in world.teacher[n : n + 1].log_probs(1.0)[0].topk(2).indices.tolist()
        assert weight == (1.0 if verified else 0.05)
    assert set(found.tolist()) == {1.0, 0.05}


def overlaps(world, k):
    found = []
    for n in range(int(world.mask.sum())):
        ours, theirs = (
            set(m[n : n + 1].log_probs(1.0)[0].topk(k).indices.tolist()) for m in (world.student, world.teacher)
        )
        found.append(len(ours & theirs) / k)
    return found


def test_overlap(world):
    found = weights({"kind": "overlap", "k": 3, "threshold": 0.9}, world)[world.mask]
    assert found.tolist() == [float(share >= 0.9) for share in overlaps(world, 3)]
    assert 0 < float(found.sum()) < len(found)


def test_prune_counts_incompatible_states_so_far(world):
    found = weights({"kind": "prune", "k": 3, "threshold": 0.9, "decay": 0.3}, world)
    share = overlaps(world, 3)
    bad: dict[int, int] = {}
    for (b, t), overlap in zip(tokens_of(world), share, strict=True):
        bad[b] = bad.get(b, 0) + (overlap < 0.9)
        assert float(found[b, t]) == pytest.approx(max(0.0, 1 - 0.3 * bad[b]))
    assert float(found[world.mask].min()) < 0.5


@pytest.mark.parametrize(
    ("gate", "inside"),
    [
        ({"start": 1, "stop": 3}, lambda i, n: 1 <= i < 3),
        ({"stop": 2}, lambda i, n: i < 2),
        ({"start": 4}, lambda i, n: i >= 4),
        ({"stop": 2, "counted_from": "end"}, lambda i, n: n - 1 - i < 2),
        ({"start": 1, "counted_from": "end"}, lambda i, n: n - 1 - i >= 1),
    ],
)
def test_window(gate, inside, world):
    found = weights({"kind": "window", **gate}, world)
    for b, t in tokens_of(world):
        assert float(found[b, t]) == float(inside(t, int(world.mask[b].sum())))


def test_window_counts_actions_not_positions(world):
    """A tool's tokens between two of the student's own take no place in the window."""
    from dataclasses import replace

    mask = world.mask.clone()
    mask[0, 2:5] = False
    found = apply_gates(
        method({"kind": "window", "stop": 4}).gates, Seen(replace(world, mask=mask), world.log_ratio, PlanState())
    )
    assert found.weights[0].tolist() == [1, 1, 0, 0, 0, 1, 1, 0]


def test_prefix_weight(world):
    found = weights({"kind": "prefix_weight", "gamma": 0.5}, world)
    for b, t in tokens_of(world):
        size = world.log_ratio[b].abs()
        expected = 1 + 0.5 * (1 - float(size[:t].sum() / size.sum()))
        assert float(found[b, t]) == pytest.approx(expected)
    torch.testing.assert_close(
        weights({"kind": "prefix_weight"}, world, advantages=torch.zeros_like(world.log_ratio)),
        1.5 * world.mask.double(),
    )


def test_fire(world):
    found = weights({"kind": "fire", "drop": 0.4, "alpha": 2.0, "beta": 0.5}, world)
    means = [float(world.teacher_logp[b][world.mask[b]].mean()) for b in range(6)]
    dropped = sorted(range(6), key=lambda b: means[b])[:2]
    raw = torch.zeros_like(found)
    for b, t in tokens_of(world):
        if b not in dropped:
            sure = 1 - world.teacher_entropy[b, t] / world.teacher_entropy.max()
            raw[b, t] = (1 + 2.0 * sure) * (1 + 0.5 * world.student_entropy[b, t] / world.student_entropy.max())
    kept = raw > 0
    torch.testing.assert_close(found, raw / raw[kept].mean())


def test_scope(world):
    plan = build_plan(method({"kind": "scope", "tau": 2.0, "imitation": 0.5}), world)
    found, imitation = plan.view.gates, plan.components["imitation"]
    reward, group = world.context.reward.tolist(), world.context.group.tolist()
    mean_logp = {
        True: [float(world.student_logp[b][world.mask[b]].mean()) for b in range(6)],
        False: [float(world.teacher_logp[b][world.mask[b]].mean()) for b in range(6)],
    }
    for n, (b, t) in enumerate(tokens_of(world)):
        right = reward[b] > 0.5
        peers = [c for c in range(6) if group[c] == group[b] and (reward[c] > 0.5) == right]
        # perplexity = exp(-mean log-probability); wrong: teacher's^(-1/tau), right: student's^(1/tau)
        raw = [math.exp(-mean_logp[right][c]) ** ((1 if right else -1) / 2.0) for c in peers]
        weight = raw[peers.index(b)] / sum(raw) * len(peers)
        assert float(found[b, t]) == pytest.approx(0.0 if right else weight)
        assert float(imitation[n]) == pytest.approx(0.5 * weight if right else 0.0)


def test_agreement(world):
    found = weights({"kind": "agreement", "delta": 0.05}, world)
    reward, group = world.context.reward, world.context.group
    seen = set()
    for b in range(6):
        better = float(reward[b] - reward[group == group[b]].mean()) > 0
        lead = float(world.log_ratio[b][world.mask[b]].mean())
        agree = lead > 0.05 if better else lead < -0.05
        seen.add(agree)
        assert set(found[b][world.mask[b]].tolist()) == {float(agree)}
    assert seen == {True, False}


def test_sequence(world):
    found = weights({"kind": "sequence", "tau": 0.5}, world)
    score = torch.stack([world.teacher_logp[b][world.mask[b]].mean() / 0.5 for b in range(6)])
    for b in range(6):
        expected = float(score.softmax(0)[b]) * 6
        assert found[b][world.mask[b]].tolist() == pytest.approx([expected] * int(world.mask[b].sum()))


def test_random_keeps_its_share_and_follows_its_generator(world):
    def draw(seed):
        state = PlanState(generator=torch.Generator().manual_seed(seed))
        return weights({"kind": "random", "share": 0.4}, world, state)

    assert float(draw(1).sum()) == math.ceil(0.4 * int(world.mask.sum()))
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("random", "eopd")])
def test_the_random_control_has_the_same_weights_on_other_tokens(kind, world):
    narrow = {"window": {"stop": 2}, "entropy": {"threshold": 1.2}, "prune": {"k": 3, "decay": 0.3}}.get(kind, {})
    narrow |= {"selectkd": {"k": 1}, "overlap": {"k": 3, "threshold": 0.9}}.get(kind, {})
    state = PlanState(generator=torch.Generator().manual_seed(3))
    gate = {"kind": kind, **narrow}
    chosen, control = weights(gate, world), weights({**gate, "control": "random"}, world, state)
    mask = world.mask
    torch.testing.assert_close(control[mask].sort().values, chosen[mask].sort().values)
    assert not torch.equal(control, chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_every_gate_reports_its_budget_and_never_speaks_off_the_mask(kind, world):
    plan = build_plan(method({"kind": kind}), world)
    shown = plan.view.gate_by_name[kind]
    assert plan.statistics[f"gate_{kind}_share"] == pytest.approx(float((shown[world.mask] > 0).double().mean()))
    assert plan.statistics[f"gate_{kind}_weight"] == pytest.approx(float(shown[world.mask].mean()))
    assert float(shown.min()) >= 0
    assert float(shown[~world.mask].abs().sum()) == 0


def test_gates_multiply_and_scale_the_whole_force(world):
    student = world.student.log_probs(1.0)
    routed = {"routing": {"kind": "counterfactual"}}
    both = build_plan(method({"kind": "window", "stop": 3}, {"kind": "prefix_weight"}, **routed), world)
    expected = weights({"kind": "window", "stop": 3}, world) * weights({"kind": "prefix_weight"}, world)
    torch.testing.assert_close(both.view.gates, expected)
    plain = force(build_plan(method(**routed), world), student)
    torch.testing.assert_close(force(both, student), expected[world.mask][:, None] * plain)
    direct = MethodSpec.model_validate({"gates": [{"kind": "window", "stop": 3}]})
    plain = force(build_plan(MethodSpec(), world), student)
    gate = weights({"kind": "window", "stop": 3}, world)[world.mask]
    torch.testing.assert_close(force(build_plan(direct, world), student), gate[:, None] * plain)


def test_time_passes_at_a_closed_gate(world):
    credit = {"estimator": "discounted", "gamma": 0.5}
    gated = build_plan(method({"kind": "window", "start": 2}, credit=credit), world)
    plain = build_plan(method(credit=credit), world)
    torch.testing.assert_close(gated.view.advantages, plain.view.advantages)
    assert gated.normalizer == plain.normalizer


@pytest.mark.parametrize("kind", ["scope", "agreement"])
def test_a_gate_that_needs_rewards_says_so(kind, batch, feedback):
    with pytest.raises(ValueError, match=f"gates: '{kind}' needs the verifier's rewards"):
        build_plan(method({"kind": kind}), feedback())


@pytest.mark.parametrize("kind", KINDS)
def test_gates_of_an_empty_batch_are_empty(kind, world):
    from dataclasses import replace

    from opd_core.objective.feedback import Feedback

    nothing = torch.zeros_like(world.mask)
    empty = Feedback.from_rows(world.student[0:0], world.teacher[0:0], world.tokens, nothing, context=world.context)
    empty = replace(empty, values=torch.zeros_like(world.log_ratio), bootstrap=torch.zeros(6))
    assert len(build_plan(method({"kind": kind}), empty)) == 0
