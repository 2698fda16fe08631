"""The relatives of counterfactual routing, and CR-OPD's trigger and fallbacks: exact forces, row by row."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import gradient

from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.objective.routing import counterfactual_route
from opd_core.objective.targets import DenseTarget
from opd_core.spec import MethodSpec

N, V = 120, 9


@pytest.fixture
def world(generator, deliver):
    """One sequence of 120 states; the reference is another model altogether."""
    student, teacher, reference = (torch.randn(1, N, V, generator=generator, dtype=torch.float64) * 2 for _ in range(3))
    tokens = torch.randint(V, (1, N), generator=generator)
    return deliver(student, teacher, tokens, torch.ones(1, N).bool(), reference=DenseTarget(reference[0]))


def method(routing=None, **fields) -> MethodSpec:
    return MethodSpec.model_validate(
        {
            "objective": {"route": "log_ratio"},
            "support": {"kind": "sampled"},
            **({"routing": routing} if routing else {}),
            **fields,
        }
    )


def models(world):
    """(pi, p, y, r) by row."""
    pi, p = world.student.log_probs(1.0).exp(), world.teacher.log_probs(1.0).exp()
    return pi, p, world.tokens[0], (p / pi).log().gather(1, world.tokens[0][:, None])[:, 0]


def push(method, world):
    return force(build_plan(method, world), world.student.log_probs(1.0))


def top_k_forward_kl(world, k):
    """-grad of the forward KL on the teacher's k favourites and a bucket, by the oracle's coarse distributions."""
    rows = []
    for student, teacher in zip(world.student.logits, world.teacher.logits, strict=True):
        ids = teacher.topk(k).indices
        live = student.clone().requires_grad_()
        pi, p = live.softmax(-1), teacher.softmax(-1)
        coarse = [torch.cat([q[ids], 1 - q[ids].sum()[None]]) for q in (pi, p)]
        value = (coarse[1] * (coarse[1] / coarse[0]).log()).sum()
        rows.append(-torch.autograd.grad(value, live)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("margin", [1e-3, 0.1, -0.05])
def test_aopd_hands_over_to_forward_kl_where_the_teacher_gives_less(margin, world):
    pi, p, y, _ = models(world)
    fires = (p - pi).gather(1, y[:, None])[:, 0] <= -margin
    expected = torch.where(fires[:, None], 0.7 * top_k_forward_kl(world, 4), push(method(), world))
    found = push(method({"kind": "aopd", "k": 4, "margin": margin, "weight": 0.7}), world)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert 10 < int(fires.sum()) < N


def test_the_papers_aopd_pulls_by_p_over_k(world):
    pi, p, y, _ = models(world)
    fires = (p - pi).gather(1, y[:, None])[:, 0] <= 0
    expected = push(method(), world)
    for n in fires.nonzero()[:, 0].tolist():
        pull = torch.zeros(V, dtype=torch.float64)
        ids = p[n].topk(4).indices
        pull[ids] = p[n][ids] / 4
        expected[n] = pull - pull.sum() * pi[n]
    found = push(method({"kind": "aopd", "k": 4, "margin": 0.0, "form": "raw"}), world)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_a_strict_margin_keeps_aopd_at_rest_at_the_teacher_and_the_papers_does_not(world, generator, deliver):
    student = world.student.logits[None]
    nearly = student + 1e-6 * torch.randn(student.shape, generator=generator, dtype=torch.float64)
    same = deliver(student, nearly, world.tokens, world.mask)
    assert float(push(method({"kind": "aopd"}), same).abs().max()) < 1e-5
    assert float(push(method({"kind": "aopd", "k": 4, "margin": 0.0, "form": "raw"}), same).abs().max()) > 0.01


@pytest.mark.parametrize("anchor", ["teacher", "reference"])
def test_apo_pushes_the_token_and_pulls_the_anchors_favourites(anchor, world):
    pi, p, y, r = models(world)
    other = p if anchor == "teacher" else world.context.reference.log_probs(1.0).exp()
    expected = torch.zeros(N, V, dtype=torch.float64)
    for n in range(N):
        a = torch.zeros(V, dtype=torch.float64)
        advantage = float(r[n])
        if advantage < 0:
            ranked = [v for v in other[n].argsort(descending=True).tolist() if v != int(y[n])][:3]
            total = float(other[n][ranked].sum())
            for v in ranked:
                a[v] = -0.2 * advantage * float(pi[n, v]) / total
        a[y[n]] += advantage * (1.3 if advantage < 0 else 1.0)
        expected[n] = a - a.sum() * pi[n]
    found = push(method({"kind": "apo", "anchor": anchor, "push": 1.3, "pull": 0.2, "k": 3}), world)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_apo_without_its_reference_says_what_is_missing(batch, feedback):
    with pytest.raises(ValueError, match=r"routing\.anchor 'reference' needs the student at the start of the run"):
        build_plan(method({"kind": "apo", "anchor": "reference"}), feedback())


@pytest.mark.parametrize("handling", ["clip", "mask", "forward_kl"])
def test_outliers_are_handled_apart(handling, world):
    _, _, _, r = models(world)
    out = r < math.log(0.3)
    plain = push(method(), world)
    expected = {
        "clip": plain * torch.where(out, math.log(0.3) / r, 1.0)[:, None],
        "mask": plain * (~out)[:, None],
        "forward_kl": torch.where(out[:, None], 0.5 * top_k_forward_kl(world, 4), plain),
    }[handling]
    routing = {"kind": "outlier", "trust": 0.3, "handling": handling, "k": 4, "weight": 0.5}
    torch.testing.assert_close(push(method(routing), world), expected, atol=1e-12, rtol=0)
    assert build_plan(method(routing), world).statistics["route_triggered"] == pytest.approx(float(out.double().mean()))
    assert 10 < int(out.sum()) < N


@pytest.mark.parametrize(("trigger", "threshold"), [("log_ratio", 1.5), ("probability", 0.1), ("probability", 0.0)])
def test_the_trigger_decides_which_rows_are_routed(trigger, threshold, world):
    pi, p, y, r = models(world)
    deficit = r if trigger == "log_ratio" else (p - pi).gather(1, y[:, None])[:, 0]
    fires = deficit < -threshold
    routing = {"kind": "counterfactual", "student_top_k": 5, "teacher_top_k": 4}
    chosen = push(method({**routing, "trigger": trigger, "threshold": threshold}), world)
    everywhere = push(method(routing), world)
    expected = torch.where(fires[:, None], everywhere, push(method(), world))
    torch.testing.assert_close(chosen, expected, atol=1e-12, rtol=0)
    assert int(fires.sum()) > 10


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_geometric_weights_lie_between_the_models(beta, world):
    pi, p, y, _ = models(world)
    route = counterfactual_route(
        pi.log(), p.log(), y, student_top_k=5, teacher_top_k=4, weighting="geometric", beta=beta
    )
    raw = p.gather(1, route.ids) ** beta * pi.gather(1, route.ids) ** (1 - beta) * (route.weights > 0)
    routed = route.weights.sum(1) > 0
    torch.testing.assert_close((raw / raw.sum(1, keepdim=True))[routed], route.weights[routed])
    assert int((route.weights[routed] > 0).sum()) > int(routed.sum())  # more than one destination somewhere


@pytest.mark.parametrize("fallback", ["plain", "abstain", "down_weight", "forward_kl"])
@pytest.mark.parametrize("magnitude", ["log_ratio", "advantage"])
def test_every_fallback_where_nothing_qualifies(fallback, magnitude, world):
    pi, p, y, r = models(world)
    settings = {"student_top_k": 3, "teacher_top_k": 2}
    route = counterfactual_route(pi.log(), p.log(), y, **settings, weighting="teacher")
    empty = route.empty
    routing = {"kind": "counterfactual", **settings, "magnitude": magnitude}
    found = push(method({**routing, "fallback": fallback, "fallback_weight": 0.25}), world)
    plain = push(method(), world)
    expected = {
        "plain": plain,
        "abstain": torch.zeros_like(plain),
        "down_weight": 0.25 * plain,
        "forward_kl": 0.25 * top_k_forward_kl(world, 2),
    }[fallback]
    torch.testing.assert_close(found[empty], expected[empty], atol=1e-12, rtol=0)
    rho = torch.zeros_like(plain).scatter_(1, route.ids, route.weights)
    rho.scatter_add_(1, y[:, None], -torch.ones(N, 1, dtype=torch.float64))
    full = route.active & ~empty
    torch.testing.assert_close(found[full], r.abs()[full][:, None] * rho[full], atol=1e-12, rtol=0)
    assert int(empty.sum()) > 10
    assert int(full.sum()) > 10


def test_special_tokens_are_nobodys_destination(world, deliver):
    banned = (1, 2)
    student, teacher = world.student.logits[None], world.teacher.logits[None]
    safe = deliver(student, teacher, world.tokens, world.mask, special_ids=banned)
    routing = {"kind": "counterfactual", "student_top_k": 5, "teacher_top_k": 4}
    for kind in (routing, {"kind": "apo", "k": 4}):
        plan = build_plan(method(kind), safe)
        sent = plan.route_ids[plan.route_weights > 0]
        assert not torch.isin(sent, torch.tensor(banned)).any()
        assert torch.isin(build_plan(method(kind), world).route_ids, torch.tensor(banned)).any()


def test_forward_kl_takes_no_importance_weight_and_coefficients_do(world, deliver):
    behaviour = world.student_logp - 0.5
    student, teacher = world.student.logits[None], world.teacher.logits[None]
    stale = deliver(student, teacher, world.tokens, world.mask, behaviour_logp=behaviour)
    routing = {"kind": "aopd", "k": 4}
    pi, p, y, _ = models(world)
    fires = (p - pi).gather(1, y[:, None])[:, 0] <= -1e-3
    fresh, weighted = push(method(routing), world), push(method(routing), stale)
    torch.testing.assert_close(weighted[fires], fresh[fires])
    torch.testing.assert_close(weighted[~fires], math.exp(0.5) * fresh[~fires])


def test_the_sum_over_the_whole_vocabulary_of_pi_times_r_is_reverse_kl(world):
    """Routing weights pi(v) r(v) over every token are the exact gradient: what routing departs from."""
    pi, p, _, _ = models(world)
    for n in range(5):
        a = pi[n] * (p[n] / pi[n]).log()
        expected = -gradient("reverse_kl", world.student.logits[n], world.teacher.logits[n])
        torch.testing.assert_close(a - a.sum() * pi[n], expected, atol=1e-12, rtol=0)


def test_feedback_is_scanned_once_when_the_method_says_what_it_needs(world):
    from opd_core.objective.candidates import wanted_k

    spec = method({"kind": "counterfactual", "student_top_k": 5, "teacher_top_k": 4})
    assert wanted_k(spec) == 5
    counted = []

    class Counting(DenseTarget):
        def log_probs(self, temperature):
            counted.append(len(self))
            return super().log_probs(temperature)

        def __getitem__(self, rows):
            return Counting(self.logits[rows])

    student = Counting(world.student.logits)
    special = FeedbackContext(special_ids=(V - 1,))
    found = Feedback.from_rows(student, world.teacher, world.tokens, world.mask, context=special, top_k=wanted_k(spec))
    scans = counted.count(N)
    plan = build_plan(spec, found)
    assert counted.count(N) == scans
    asked_later = Feedback.from_rows(student, world.teacher, world.tokens, world.mask, context=special)
    torch.testing.assert_close(force(plan, world.student.logits), push(spec, asked_later), atol=1e-12, rtol=0)
