"""The mathematics of on-policy distillation as float64 tests, by enumeration and through the real plan and force.

Numbers in parentheses are those of the list of identities that every implementation must pass. Divergence gradients
(1 to 4) are in test_divergences.py, signals and estimators (5, 9 to 11, 14) in test_signal.py and test_estimators.py,
supports (16, 18 to 20, 23) in test_support.py, critics (28, 31) in test_gae.py, routes (36 to 38) in test_routing.py
and test_relatives.py, alignment, padding and aggregation (42 to 49) in test_plan.py and the tests of the training step.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracle import gradient

from opd_core.objective.chain import random_chain, sequence_kl_gradient, state_kl_gradients
from opd_core.objective.credit import discounted_returns, remaining
from opd_core.objective.estimators import k1
from opd_core.objective.exact import exact_values, expected_update, measure, plan_rows, told
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import force, plan_loss
from opd_core.objective.plan import DivergenceTerm, build_plan
from opd_core.objective.support import TokenSet
from opd_core.objective.targets import DenseTarget
from opd_core.recipes import load, names
from opd_core.spec import MethodSpec

NOTHING = 1e-12


def log_ratio(**fields) -> MethodSpec:
    return MethodSpec.model_validate({"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}, **fields})


def credited(estimator, **fields) -> MethodSpec:
    return log_ratio(credit={"estimator": estimator, **fields})


def gae(form="value", **fields) -> MethodSpec:
    return credited("gae", critic={"form": form}, **fields)


def direct(divergence, **support) -> MethodSpec:
    objective = {"route": "direct", "divergence": divergence}
    return MethodSpec.model_validate({"objective": objective, "support": support or {"kind": "full"}})


class State:
    """One state, each of its V tokens sampled once; expectations are over y ~ student."""

    def __init__(self, student, teacher, reference=None):
        self.student, self.teacher, v = student, teacher, len(student)
        self.pi, self.p = student.softmax(-1), teacher.softmax(-1)
        self.r = teacher.log_softmax(-1) - student.log_softmax(-1)
        self.kl = -(self.pi * self.r).sum()
        context = FeedbackContext(reference=None if reference is None else DenseTarget(reference.expand(v, v)))
        rows = [logits.expand(v, 1, v) for logits in (student, teacher)]
        self.feedback = Feedback.from_logits(*rows, torch.arange(v)[:, None], torch.ones(v, 1), context=context)

    def forces(self, method):
        """[V, V]: of each sampled token."""
        return force(build_plan(method, self.feedback), self.student.expand(len(self.pi), -1))

    def expected(self, method):
        return self.pi @ self.forces(method)

    def policy_gradient(self, advantages):
        """E_y[A(y) grad log pi(y)] through a plan with these coefficients, whatever the spec thinks of them."""
        plan = replace(build_plan(log_ratio(), self.feedback), components={"advantage": advantages})
        return self.pi @ force(plan, self.student.expand(len(self.pi), -1))


def states(count, vocabulary=12, *, scale=1.0, apart=None, seed=7):
    """Random states: independent models, or a teacher ``apart`` away from the student."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        student, other = (torch.randn(vocabulary, generator=generator, dtype=torch.float64) for _ in range(2))
        student = scale * student
        yield State(student, other if apart is None else student + apart * other)


@pytest.fixture
def state():
    return next(states(1))


# One state


def test_log_ratios_are_minus_the_kl_on_average(state):
    """(5)"""
    assert float((state.pi * state.r).sum()) == pytest.approx(-float(state.feedback.kl[0, 0]), abs=NOTHING)
    assert float(state.pi @ state.feedback.log_ratio[:, 0]) < 0


def test_the_two_routes_coincide_on_one_state(state):
    """(6)"""
    assert close(state.expected(log_ratio()), state.expected(direct("reverse_kl")))
    assert close(state.expected(log_ratio()), -gradient("reverse_kl", state.student, state.teacher))


@pytest.mark.parametrize("baseline", [-3.0, 0.0, 0.7, "minus kl"])
def test_a_baseline_of_the_state_changes_no_expectation_but_every_sample(baseline, state):
    """(7)"""
    b = -state.kl if baseline == "minus kl" else torch.tensor(baseline, dtype=torch.float64)
    assert close(state.policy_gradient(state.r - b), state.policy_gradient(state.r))
    vopd, plain = state.forces(log_ratio(credit={"baseline": "expected"})), state.forces(log_ratio())
    assert float((vopd - plain).abs().max()) > 0.01


def test_an_advantage_that_no_token_changes_teaches_nothing(state):
    """(8): the value of a divergence is no policy-gradient signal, and is refused as one."""
    assert float(state.policy_gradient(-state.kl.expand(12)).abs().max()) < NOTHING
    with pytest.raises(ValueError, match="as an advantage its expected gradient is zero"):
        log_ratio(support={"kind": "full"})


def test_k1_differentiated_directly_never_hears_the_teacher(state):
    """(9)"""
    live = state.student.clone().requires_grad_()
    for teacher in (state.teacher, state.teacher.flip(0)):
        value = (state.pi * k1(teacher.log_softmax(-1) - live.log_softmax(-1))).sum()
        assert float(torch.autograd.grad(value, live)[0].abs().max()) < NOTHING
    method = direct("reverse_kl", kind="sampled", estimator="k2")
    other = State(state.student, state.teacher.flip(0))
    assert float((state.expected(method) - other.expected(method)).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("update", "to_reverse", "to_forward"),
    [
        ("direct k2", 1.00, 0.86),
        ("direct k3", 0.86, 1.00),
        ("A = r", 1.00, 0.86),
        ("A = -k2", 0.52, 0.19),
        ("A = -k3", 0.28, -0.08),
        ("A = -abs", 0.56, 0.23),
    ],
)
def test_cosines_of_expected_updates(update, to_reverse, to_forward):
    """(10 to 12): 200 states of a sure student and a teacher that disagrees (how far k2, k3 and |r| as signals are off
    depends on the states; that they are, does not)."""
    found = []
    for state in states(200, scale=2.5, apart=1.6):
        if update.startswith("direct"):
            kind = {"k2": "reverse_kl", "k3": "forward_kl"}[update.split()[1]]
            expected = state.expected(direct(kind, kind="sampled", estimator=update.split()[1]))
        else:
            signals = {
                "r": state.r,
                "-k2": -(state.r**2) / 2,
                "-k3": -(state.r.expm1() - state.r),
                "-abs": -state.r.abs(),
            }
            expected = state.policy_gradient(signals[update.removeprefix("A = ")])
        reverse, forward = (-gradient(kind, state.student, state.teacher) for kind in ("reverse_kl", "forward_kl"))
        found.append([torch.cosine_similarity(expected, exact, dim=0) for exact in (reverse, forward)])
    means = torch.tensor(found).mean(0).tolist()
    for mean, figure in zip(means, (to_reverse, to_forward), strict=True):
        assert mean == pytest.approx(figure, abs=1e-9 if figure == 1.0 else 0.1)
    if update in ("A = -k2", "A = -k3", "A = -abs"):
        assert means[0] < 0.7


@pytest.mark.parametrize("update", ["direct k1", "A = -kl"])
def test_expected_updates_that_are_nothing(update):
    """(8, 9)"""
    for state in states(200):
        if update == "A = -kl":
            found = state.policy_gradient(-state.kl.expand(12))
        else:  # d k1 / dz = grad log pi(y): advantage 1 for everything
            found = -state.policy_gradient(torch.ones(12, dtype=torch.float64))
        assert float(found.norm()) < NOTHING


def test_samples_of_the_teacher_turn_k1_into_minus_the_forward_kl(state):
    """(13)"""
    forward = (state.p * state.r).sum()
    assert float(state.p @ k1(state.feedback.log_ratio[:, 0])) == pytest.approx(-float(forward), abs=NOTHING)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.25, 2.0])
def test_an_extrapolated_target_is_reward_against_the_reference(scale, generator):
    """(15): r = scale log(p / ref) - log(pi / ref), up to a constant of the state; its optimum is p^s ref^(1-s)."""
    student, teacher, reference = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(3))
    objective = {"route": "log_ratio", "target": {"kind": "extrapolated", "scale": scale}}
    method = log_ratio(objective=objective)
    state = State(student, teacher, reference)
    s, t, ref = (logits.log_softmax(-1) for logits in (student, teacher, reference))
    assert close(scale * (t - ref) - (s - ref), -((s - t) + (scale - 1) * (ref - t)))
    assert close(state.expected(method), state.policy_gradient(scale * (t - ref) - (s - ref)))
    optimum = State(scale * t + (1 - scale) * ref, teacher, reference)
    assert float(optimum.forces(method).abs().max()) < NOTHING
    if scale == 1.0:
        assert close(state.expected(method), state.expected(log_ratio()))


# Supports


def raw_reverse_kl(state, k):
    """The plan that the spec refuses: sum over the teacher's k favourites of pi log(pi / p)."""
    v = len(state.pi)
    ids = state.teacher.topk(k).indices.expand(1, k)
    term = DivergenceTerm(
        "reverse_kl",
        torch.ones(1, dtype=torch.float64),
        DenseTarget(state.teacher.expand(1, v)),
        tokens=TokenSet(ids, torch.ones_like(ids, dtype=torch.bool)),
        remainder="raw",
    )
    plan = build_plan(direct("reverse_kl"), state.feedback)[0:1]
    return force(replace(plan, divergences=(term,)), state.student[None])[0], ids[0]


def test_a_raw_top_k_reverse_kl_lifts_only_what_the_teacher_gives_e_times_more(state):
    """(17): its coefficient on grad pi(v) is log(pi / p) + 1."""
    pushed, ids = raw_reverse_kl(state, 6)
    slope = torch.zeros_like(state.pi)
    slope[ids] = -state.r[ids] + 1
    assert close(pushed, -state.pi * (slope - (state.pi * slope).sum()))
    lifted = slope[ids] < 0
    assert torch.equal(lifted, state.p[ids] > torch.e * state.pi[ids])
    assert bool((lifted != (state.p[ids] > state.pi[ids])).any())


def test_a_raw_top_k_reverse_kl_is_not_at_rest_at_the_teacher():
    """(17): norm 0.176 at 8 tokens and k = 3 in one draw, 0.16 on average."""
    sizes = [float(raw_reverse_kl(State(s.student, s.student), 3)[0].norm()) for s in states(200, 8)]
    assert sum(sizes) / len(sizes) == pytest.approx(0.165, abs=0.02)


def test_a_raw_top_k_forward_kl_is_not_at_rest_and_can_be_negative():
    """(21): norm 0.094 to 0.103 at 64 tokens and k = 8, negative in about 0.4 of states near the teacher."""
    generator = torch.Generator().manual_seed(7)
    student = torch.randn(1, 300, 64, generator=generator, dtype=torch.float64)
    noise = torch.randn(1, 300, 64, generator=generator, dtype=torch.float64)

    def plan(remainder, teacher):
        tokens, mask = torch.zeros(1, 300).long(), torch.ones(1, 300)
        found = Feedback.from_logits(student, teacher, tokens, mask)
        return build_plan(direct("forward_kl", kind="teacher_top_k", k=8, remainder=remainder), found)

    sizes = {kind: force(plan(kind, student), student[0]).norm(dim=1) for kind in ("raw", "renormalised", "tail")}
    assert float(sizes["raw"].mean()) == pytest.approx(0.1, abs=0.01)
    assert max(float(sizes[kind].max()) for kind in ("renormalised", "tail")) < NOTHING
    for near, share in ((0.05, 0.4), (0.3, 0.08)):
        negative = {kind: plan_loss(plan(kind, student + near * noise), student[0]) < 0 for kind in sizes}
        assert float(negative["raw"].double().mean()) == pytest.approx(share, abs=0.07)
        assert not bool(negative["tail"].any())


# Time, on chains


@pytest.fixture(scope="module")
def chain():
    return random_chain(5, 3, seed=11)


@pytest.fixture(scope="module")
def exact(chain):
    """Descent directions: of the sequence reverse KL, and of the reverse KL at fixed states."""
    return -sequence_kl_gradient(chain)[1], -state_kl_gradients(chain)[0]


def test_immediate_credit_is_unbiased_at_fixed_states_and_biased_for_sequences(chain, exact):
    """(24)"""
    sequence, fixed = exact
    for method in (log_ratio(), credited("discounted", gamma=0.0), gae(gamma=0.0), gae("split", gamma=0.0)):
        update = expected_update(method, chain)
        assert close(update, fixed)
        assert float((update - sequence).norm()) > 0.1 * float(sequence.norm())
    assert close(expected_update(direct("reverse_kl"), chain), fixed)


def test_what_immediate_credit_drops_is_what_earlier_tokens_did_to_later_states(chain, exact):
    """(24): the missing part is E[sum_t sum_{k>t} r_k grad log pi(y_t)], and none of it is at the last position."""
    missing = exact[0] - expected_update(log_ratio(), chain)
    last = [i for i, prefix in enumerate(chain.prefixes) if len(prefix) == chain.cap - 1]
    assert float(missing[last].abs().max()) < NOTHING
    assert float(missing[0].abs().max()) > 0.01


@pytest.mark.parametrize("baseline", ["none", "expected", "batch", "position", "group"])
def test_return_to_go_is_unbiased_for_sequences_under_every_baseline(baseline):
    """(25, 7)"""
    chain = random_chain(3, 2, seed=4)
    update = expected_update(credited("return_to_go", baseline=baseline), chain)
    assert close(update, -sequence_kl_gradient(chain)[1])
    assert float((update + state_kl_gradients(chain)[0]).norm()) > 0.01


@pytest.mark.parametrize("critic", ["exact", "zero", "noisy"])
@pytest.mark.parametrize("form", ["value", "split"])
def test_gae_at_gamma_one_and_lambda_one_is_unbiased_whatever_the_critic_says(critic, form, chain, exact):
    """(26)"""
    assert close(expected_update(gae(form, gamma=1.0, lam=1.0), chain, critic=critic), exact[0])


@pytest.mark.parametrize("form", ["value", "split"])
@pytest.mark.parametrize("lam", [0.0, 0.5])
def test_gae_below_lambda_one_needs_the_exact_critic(form, lam, chain, exact):
    """(26)"""
    method = gae(form, gamma=1.0, lam=lam)
    assert close(expected_update(method, chain, critic="exact"), exact[0])
    biased = expected_update(method, chain, critic="noisy")
    assert float((biased - exact[0]).norm()) > 0.1 * float(exact[0].norm())


def test_an_exact_critic_lowers_the_variance_and_keeps_the_mean(chain):
    """(26)"""
    sampled, valued = (measure(method, chain) for method in (credited("return_to_go"), gae(gamma=1.0, lam=0.0)))
    assert sampled.sequence_reverse_kl.bias < NOTHING
    assert valued.sequence_reverse_kl.bias < NOTHING
    assert valued.variance < 0.7 * sampled.variance


def test_discounting_lies_between_and_nears_the_sequence_gradient(chain):
    """(24, 25)"""
    biases = [
        measure(credited("discounted", gamma=gamma), chain).sequence_reverse_kl.bias for gamma in (0, 0.5, 0.9, 1)
    ]
    assert biases == sorted(biases, reverse=True)
    assert biases[0] > 0.1
    assert biases[-1] < NOTHING


def test_the_differential_critic_is_biased_for_sequences(chain):
    """What it gives up for not rewarding short answers."""
    assert 0.01 < measure(gae("differential", gamma=1.0, lam=1.0), chain).sequence_reverse_kl.bias < 1.0


def coefficients(method, chain, critic="exact", outputs=None):
    rows = torch.arange(len(chain.tokens))
    known = told(method, chain, critic)
    if outputs is not None:
        known = replace(known, outputs=outputs)
    return plan_rows(method, chain, rows, rows, known)[0].coefficients


@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
def test_special_cases_of_gae_token_by_token(gamma, chain):
    """(27)"""
    method = gae(gamma=gamma, lam=1.0)
    values = 3 * torch.randn(len(chain.prefixes), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at = values[chain.states[chain.mask]]
    discounted = coefficients(credited("discounted", gamma=gamma), chain)
    assert close(coefficients(method, chain, "zero"), discounted)
    assert close(coefficients(method, chain, outputs=values), discounted - at)
    following = torch.cat([values[chain.states] * chain.mask, torch.zeros(len(chain.tokens), 1).double()], 1)[:, 1:]
    ratio = (chain.token_logp(chain.teacher) - chain.token_logp(chain.student))[chain.mask]
    residual = ratio + gamma * following[chain.mask] - at
    assert close(coefficients(gae(gamma=gamma, lam=0.0), chain, outputs=values), residual)


def test_gamma_zero_with_the_exact_critic_is_vopd_and_with_none_the_plain_log_ratio(chain):
    """(28)"""
    assert close(coefficients(gae(gamma=0.0), chain), coefficients(log_ratio(credit={"baseline": "expected"}), chain))
    assert close(coefficients(gae(gamma=0.0), chain, "zero"), coefficients(log_ratio(), chain))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.0), (0.9, 0.5), (0.5, 1.0)])
def test_splitting_off_what_is_known_changes_no_advantage(gamma, lam, chain):
    """(29)"""
    outputs = torch.randn(len(chain.prefixes), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own, theirs = chain.student.log_softmax(-1), chain.teacher.log_softmax(-1)
    whole = -(own.exp() * (own - theirs)).sum(-1) + gamma * outputs
    split = coefficients(gae("split", gamma=gamma, lam=lam), chain, outputs=outputs)
    assert close(split, coefficients(gae("value", gamma=gamma, lam=lam), chain, outputs=whole))


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_values_of_log_ratio_returns_are_never_positive_and_add_up(gamma, chain):
    """(30): V = -K + gamma E[V at the next state]."""
    values, after = (exact_values(gae(form, gamma=gamma), chain) for form in ("value", "split"))
    own, theirs = chain.student.log_softmax(-1), chain.teacher.log_softmax(-1)
    assert close(values, -(own.exp() * (own - theirs)).sum(-1) + gamma * after)
    assert float(values.max()) <= 0


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_discounting_by_position_has_a_factor_too_many(gamma, generator):
    """(32, 33): sum_{i>=t} gamma^i r_i = gamma^t G_t; the factor cancels only in the normalised form."""
    rewards = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] + [0] * 5]).bool()
    powers = (gamma ** torch.arange(6, dtype=torch.float64)) * mask
    absolute = (powers * rewards).flip(1).cumsum(1).flip(1)
    returns = discounted_returns(rewards, mask, gamma)
    assert close(absolute * mask, powers * returns)
    normalised = absolute / powers.flip(1).cumsum(1).flip(1).clamp(min=1e-300)
    assert close(normalised[mask], (returns / remaining(rewards, mask, gamma).clamp(min=1.0))[mask])


# Where mass goes


def change(state, pushed):
    """First-order change of the probabilities under a force [V, V] per sampled token."""
    return state.pi * (pushed - (state.pi * pushed).sum(1, keepdim=True))


def test_one_step_moves_probability_by_the_law_of_the_softmax(state):
    """(34): in closed form, and against a small real step."""
    pi, norm = state.pi, state.pi @ state.pi
    pushed = state.forces(log_ratio())
    moved = change(state, pushed)
    suppressed = 0
    for y in range(12):
        size = state.r[y].abs()
        if state.r[y] >= 0:
            continue
        expected = size * pi * (pi + pi[y] - norm)
        expected[y] = -size * pi[y] * (1 - 2 * pi[y] + norm)
        assert close(moved[y], expected)
        assert abs(float(moved[y].sum())) < NOTHING
        step = 1e-6
        assert float((((state.student + step * pushed[y]).softmax(-1) - pi) / step - expected).abs().max()) < 1e-5
        suppressed += 1
    assert suppressed > 3


def test_most_alternatives_lose_probability_although_their_logits_rise():
    """(35): every v with pi_v < |pi|^2 - pi_y."""
    pi = torch.tensor([0.45, 0.25, 0.1, 0.06, 0.05, 0.04, 0.03, 0.02], dtype=torch.float64)
    teacher = torch.full((8,), 1 / 8, dtype=torch.float64)
    teacher[3] = 0.01
    state, y = State(pi.log(), teacher.log()), 3
    pushed = state.forces(log_ratio())[y]
    moved = change(state, pushed[None])[0]
    others = torch.arange(8) != y
    assert bool((pushed[others] > 0).all())
    losers = others & (pi < pi @ pi - pi[y])
    assert torch.equal(losers, others & (moved < 0))
    assert int(losers.sum()) == 5


@pytest.mark.parametrize("magnitude", ["log_ratio", "advantage"])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_a_routed_force_has_a_direct_and_a_routed_part(magnitude, strength, state):
    """(36): |m| [strength (rho - pi) - (e_y - pi)] wherever the trigger is on."""
    routing = {"kind": "counterfactual", "strength": strength, "magnitude": magnitude, "teacher_top_k": 5}
    method = log_ratio(routing=routing, credit={"baseline": "expected"})
    pushed = state.forces(method)
    advantages = state.r + state.kl
    top = state.teacher.topk(5).indices
    routed = 0
    for y in range(12):
        size = state.r[y] if magnitude == "log_ratio" else advantages[y]
        if state.r[y] >= 0 or size >= 0:
            continue
        rho = torch.zeros_like(state.pi)
        chosen = top[(state.r[top] > 0) & (top != y)]
        rho[chosen] = state.p[chosen] / state.p[chosen].sum()
        own = torch.eye(12, dtype=torch.float64)[y]
        assert close(pushed[y], -size * (strength * (rho - state.pi) - (own - state.pi)))
        if strength == 1.0:
            untouched = (rho == 0) & (torch.arange(12) != y)
            assert float(pushed[y][untouched].abs().max()) < NOTHING
        routed += 1
    assert routed > 2


def test_routing_everything_by_pi_r_is_the_reverse_kl(state):
    """(37)"""
    plan = build_plan(log_ratio(), state.feedback)[0:1]
    ids = torch.arange(12)[None]
    plan = replace(plan, components={}, route_ids=ids, route_weights=(state.pi * state.r)[None])
    assert close(force(plan, state.student[None])[0], -gradient("reverse_kl", state.student, state.teacher))


@pytest.mark.parametrize("weighting", ["teacher", "deficit", "geometric"])
def test_routes_are_distributions_that_leave_out_the_sampled_token(weighting):
    """(38)"""
    routing = {"kind": "counterfactual", "weighting": weighting, "teacher_top_k": 3, "student_top_k": 4}
    routed = 0
    for state in states(10):
        plan = build_plan(log_ratio(routing=routing), state.feedback)
        totals = plan.route_weights.sum(1) / -plan.coefficients
        assert ((totals - 1).abs().lt(1e-9) | totals.eq(0)).all()
        assert float(plan.route_weights[plan.route_ids == plan.tokens[:, None]].abs().sum()) == 0.0
        assert float(plan.route_weights.min()) >= 0
        routed += int(totals.gt(0).sum())
    assert routed > 10


def test_the_probability_trigger_goes_from_plain_distillation_to_imitation(state):
    """(39): AOPD's margin 1 never fires, -1 always."""
    never = log_ratio(routing={"kind": "aopd", "k": 12, "margin": 1.0})
    always = log_ratio(routing={"kind": "aopd", "k": 12, "margin": -1.0})
    assert close(state.forces(never), state.forces(log_ratio()))
    assert close(state.forces(always), state.forces(direct("forward_kl")))


# Student and teacher


RESTING = [name for name in names() if load(name).fixed_point == "teacher"]


@pytest.mark.parametrize("name", RESTING)
def test_scores_that_are_off_by_one_position_break_the_rest(name, batch, deliver):
    """(40): with the teacher's own scores there is none of it, one token late there is a force."""
    student, _, tokens, mask = batch
    method = load(name).method
    aligned, late = (
        force(build_plan(method, deliver(student, teacher, tokens, mask)), student[mask])
        for teacher in (student, student.roll(1, 1))
    )
    assert float(aligned.abs().max()) < 1e-12
    assert float(late.abs().max()) > 1e-3


@pytest.mark.parametrize("name", names())
def test_with_another_teacher_every_distillation_goes_its_way(name):
    """(41): a positive cosine to the reverse or the forward KL at the student's states."""
    chain = random_chain(4, 2, seed=0)
    update = expected_update(load(name).method.distillation(), chain)
    assert float(update.norm()) > 1e-4
    cosines = [torch.cosine_similarity(update.flatten(), -g.flatten(), dim=0) for g in state_kl_gradients(chain)]
    assert float(max(cosines)) > 0.1


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
    return True
