"""The exact laboratory against itself done by hand: one sequence at a time, dense tables, backward induction."""

from __future__ import annotations

import pytest
import torch

from opd_core.objective.chain import enumerate_chain, random_chain, sequence_kl_gradient, state_kl_gradients
from opd_core.objective.exact import (
    DRAWS,
    default_chain,
    ended_with_one,
    exact_values,
    expected_update,
    measure,
    plan_rows,
    reach,
    told,
    uses_chance,
)
from opd_core.objective.loss import force
from opd_core.recipes import load, names
from opd_core.spec import MethodSpec


def log_ratio(**fields) -> MethodSpec:
    return MethodSpec.model_validate({"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}, **fields})


def gae(form="value", gamma=1.0, lam=0.5, end="return", **fields) -> MethodSpec:
    critic = {"form": form, "end_of_sequence": end}
    return log_ratio(credit={"estimator": "gae", "gamma": gamma, "lam": lam, "critic": critic}, **fields)


@pytest.fixture(scope="module")
def chain():
    return random_chain(4, 3, seed=3)


# The chain


def test_every_sequence_is_listed_once_and_the_probabilities_sum_to_one(chain):
    written = [tuple(row[: int(mask.sum())].tolist()) for row, mask in zip(chain.tokens, chain.mask, strict=True)]
    assert len(set(written)) == len(written) == 1 + 3 + 9 + 27
    for sequence, cut in zip(written, chain.truncated.tolist(), strict=True):
        assert 0 not in sequence[:-1]
        assert cut == (sequence[-1] != 0)
        assert not cut or len(sequence) == 3
    assert float(chain.probabilities.sum()) == pytest.approx(1.0, abs=1e-14)
    for sequence, states in zip(written, chain.states, strict=True):
        assert [chain.prefixes[s] for s in states[: len(sequence)].tolist()] == [
            sequence[:t] for t in range(len(sequence))
        ]


def test_visits_are_products_of_the_probabilities_on_the_way(chain):
    pi = chain.student.softmax(-1)
    number = {prefix: i for i, prefix in enumerate(chain.prefixes)}
    for prefix, visited in zip(chain.prefixes, chain.visits.tolist(), strict=True):
        way = [pi[number[prefix[:t]], prefix[t]] for t in range(len(prefix))]
        assert visited == pytest.approx(float(torch.stack(way).prod()) if way else 1.0, abs=1e-14)


@pytest.mark.parametrize(("vocabulary", "cap", "named"), [(17, 2, "vocabulary"), (1, 2, "vocabulary"), (4, 5, "cap")])
def test_what_cannot_be_listed_is_refused(vocabulary, cap, named):
    with pytest.raises(ValueError, match=f"{named} must be from"):
        enumerate_chain(vocabulary, cap)


def test_the_sequence_kl_is_the_sum_of_the_kls_on_the_way(chain):
    value, gradient = sequence_kl_gradient(chain)
    own, theirs = chain.student.log_softmax(-1), chain.teacher.log_softmax(-1)
    assert value == pytest.approx(float(chain.visits @ (own.exp() * (own - theirs)).sum(-1)), abs=1e-12)
    step = 1e-6
    for state, token in ((0, 0), (0, 2), (1, 1), (7, 3)):
        bump = torch.zeros_like(chain.student)
        bump[state, token] = step
        up, down = (sequence_kl_gradient(shifted(chain, sign * bump))[0] for sign in (1, -1))
        assert float(gradient[state, token]) == pytest.approx((up - down) / (2 * step), abs=1e-8)


def shifted(chain, bump):
    from dataclasses import replace

    return replace(chain, student=chain.student + bump)


def test_state_gradients_hold_the_visits_fixed(chain):
    reverse, forward = state_kl_gradients(chain)
    pi, p = chain.student.softmax(-1), chain.teacher.softmax(-1)
    ratio = (pi / p).log()
    visits = chain.visits[:, None]
    torch.testing.assert_close(reverse, visits * pi * (ratio - (pi * ratio).sum(-1, keepdim=True)))
    torch.testing.assert_close(forward, visits * (pi - p))


def test_the_verifier_wants_token_one_and_an_end(chain):
    rewards = ended_with_one(chain).tolist()
    for row, mask, cut, reward in zip(chain.tokens, chain.mask, chain.truncated, rewards, strict=True):
        assert reward == float(1 in row[mask].tolist() and not bool(cut))
    assert 0 < sum(rewards) < len(rewards)


# Expectation and variance


def by_hand(method, chain, size):
    """(mean [S, V], trace of the covariance) from one plan per batch and dense tables."""
    own, count = chain.probabilities, len(chain.tokens)
    seen = told(method, chain)
    batches = [[i] for i in range(count)] if size == 1 else [[i, j] for i in range(count) for j in range(count)]
    estimates, weights = [], []
    for batch in batches:
        rows = torch.tensor(batch)
        plan, logits = plan_rows(method, chain, rows, torch.zeros(size), seen)
        pushed, total, at = force(plan, logits), torch.zeros_like(chain.student), 0
        for row in batch:
            for t in range(int(chain.mask[row].sum())):
                total[chain.states[row, t]] += pushed[at] / size
                at += 1
        estimates.append(total)
        weights.append(float(own[rows].prod()))
    stacked, p = torch.stack(estimates), torch.tensor(weights, dtype=torch.float64)
    mean = (p[:, None, None] * stacked).sum(0)
    return mean, float((p * (stacked - mean).square().sum((1, 2))).sum())


@pytest.mark.parametrize(
    "method",
    [
        load("forward-kl").method,
        load("tml-opd").method,
        load("return-to-go").method,
        load("vopd-cr-opd").method,
        load("aopd").method,
        gae("differential", 0.9),
        gae("per_token", 0.9),
    ],
)
def test_one_sequence_at_a_time_gives_the_same_mean_and_variance(method, chain):
    mean, variance = by_hand(method, chain, 1)
    measured = measure(method, chain)
    assert measured.batch == 1
    torch.testing.assert_close(expected_update(method, chain), mean, atol=1e-12, rtol=0)
    scale = float(sequence_kl_gradient(chain)[1].square().sum())
    assert measured.variance == pytest.approx(variance / scale, rel=1e-9)


@pytest.mark.parametrize(
    "method",
    [
        log_ratio(credit={"baseline": "group"}),
        log_ratio(regularizers=[{"kind": "reward"}]),
        load("scope").method,
        log_ratio(credit={"estimator": "return_to_go", "baseline": "position"}),
        MethodSpec.model_validate({"gates": [{"kind": "tip"}]}),
        log_ratio(gates=[{"kind": "fire", "drop": 0.5}]),
    ],
)
def test_one_pair_at_a_time_gives_the_same_mean_and_variance(method):
    chain = random_chain(3, 2, seed=5)
    mean, variance = by_hand(method, chain, 2)
    measured = measure(method, chain)
    assert measured.batch == 2
    torch.testing.assert_close(expected_update(method, chain), mean, atol=1e-12, rtol=0)
    scale = float(sequence_kl_gradient(chain)[1].square().sum())
    assert measured.variance == pytest.approx(2 * variance / scale, rel=1e-9)


@pytest.mark.parametrize("name", names())
def test_a_method_looks_exactly_as_far_as_its_reach_says(name):
    """Alone, among its prompt's, among another prompt's: does a sequence's force change?"""
    method, chain = load(name).method, random_chain(4, 2, seed=1)
    seen = told(method, chain)
    count = len(chain.tokens)

    def forces(rows, group):
        plan, logits = plan_rows(method, chain, torch.tensor(rows), torch.tensor(group), seen)
        return force(plan, logits)

    length, everyone = chain.mask.sum(1).tolist(), list(range(count))
    alone = [forces([row], [0]) for row in everyone]
    same = [forces([row, *everyone], [0] * (count + 1))[: length[row]] for row in everyone]
    apart = [forces([row, *everyone], [0, *[1] * count])[: length[row]] for row in everyone]
    in_the_prompt, in_the_batch = (
        any(float((a - b).abs().max()) > 1e-9 for a, b in zip(others, alone, strict=True)) for others in (same, apart)
    )
    assert reach(method) == ("batch" if in_the_batch else "group" if in_the_prompt else "sequence")


def test_chains_are_small_enough_for_what_a_method_compares():
    for name in names():
        method = load(name).method
        chain = default_chain(method)
        assert len(chain.tokens) == (781 if reach(method) == "sequence" else 13)
        assert uses_chance(method) == any(gate.kind == "random" or gate.control == "random" for gate in method.gates)


def test_a_random_half_is_about_half_of_the_update():
    """Of n tokens ceil(n / 2) speak, whichever: the exact mean weighs a pair's tokens by that share."""
    chain = random_chain(4, 2, seed=0)
    full, half = MethodSpec(), MethodSpec.model_validate({"gates": [{"kind": "random", "share": 0.5}]})
    own = chain.probabilities
    length = chain.mask.sum(1)
    exact = torch.zeros_like(chain.student)
    plan, logits = plan_rows(full, chain, torch.arange(len(own)), torch.arange(len(own)), told(full, chain))
    pushed, row = force(plan, logits), torch.arange(len(own))[:, None].expand_as(chain.mask)[chain.mask]
    for other in range(len(own)):
        tokens = (length[row] + length[other]).double()
        share = (tokens / 2).ceil() / tokens
        exact.index_add_(0, chain.states[chain.mask], (own[row] * own[other] * share)[:, None] * pushed)
    drawn = expected_update(half, chain)
    assert float((drawn - exact).norm() / exact.norm()) < 0.1
    assert float((expected_update(full, chain) - exact).norm() / exact.norm()) > 0.5


def test_lots_are_drawn_by_seed_and_the_number_of_draws_is_told():
    chain, half = random_chain(2, 2, seed=0), MethodSpec.model_validate({"gates": [{"kind": "random", "share": 0.5}]})
    first, again, other = (expected_update(half, chain, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert float((first - other).abs().max()) > 1e-4
    assert measure(half, chain).draws == DRAWS
    assert measure(MethodSpec(), chain).draws == 0


# The critic


def values_by_induction(chain, gamma, average=0.0):
    """[S] V^gamma = -K - average + gamma E[V at the next state], from the cap backwards; 0 after the last token."""
    pi = chain.student.softmax(-1)
    number = {prefix: i for i, prefix in enumerate(chain.prefixes)}
    k = (pi * (chain.student.log_softmax(-1) - chain.teacher.log_softmax(-1))).sum(-1)
    values, after = torch.zeros(len(pi), dtype=torch.float64), torch.zeros(len(pi), dtype=torch.float64)
    for prefix in sorted(chain.prefixes, key=len, reverse=True):
        s = number[prefix]
        for word in range(1, chain.vocabulary):
            if (*prefix, word) in number:
                after[s] += pi[s, word] * values[number[(*prefix, word)]]
        values[s] = -(k[s] + average) + gamma * after[s]
    return values, after


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_exact_values_are_those_of_backward_induction(gamma, lam, chain):
    values, after = values_by_induction(chain, gamma)
    torch.testing.assert_close(exact_values(gae("value", gamma, lam), chain), values, atol=1e-10, rtol=0)
    torch.testing.assert_close(exact_values(gae("split", gamma, lam), chain), after, atol=1e-10, rtol=0)
    assert float(values.max()) <= 0


def test_the_differential_critic_is_measured_against_the_average_of_all_tokens(chain):
    own, lengths = chain.probabilities, chain.mask.sum(1).double()
    ratio = chain.token_logp(chain.teacher) - chain.token_logp(chain.student)
    average = float((own @ ratio.sum(1)) / (own @ lengths))
    method = gae("differential", 0.9)
    assert told(method, chain).running["reward_mean"] == pytest.approx(average, abs=1e-12)
    torch.testing.assert_close(
        exact_values(method, chain), values_by_induction(chain, 0.9, average)[1], atol=1e-10, rtol=0
    )


def test_the_per_token_critic_is_the_mean_over_what_remains(chain):
    """With lambda 1 a target is the sampled mean; the exact value is its average over all sequences from there."""
    ratio = chain.token_logp(chain.teacher) - chain.token_logp(chain.student)
    own, gamma = chain.probabilities, 0.9
    top, bottom = torch.zeros(len(chain.prefixes)).double(), torch.zeros(len(chain.prefixes)).double()
    for row in range(len(own)):
        length = int(chain.mask[row].sum())
        for t in range(length):
            weights = torch.tensor([gamma**j for j in range(length - t)], dtype=torch.float64)
            top[chain.states[row, t]] += own[row] * (weights * ratio[row, t:length]).sum() / weights.sum()
            bottom[chain.states[row, t]] += own[row]
    torch.testing.assert_close(exact_values(gae("per_token", gamma, 1.0), chain), top / bottom, atol=1e-10, rtol=0)


def test_where_ending_earns_nothing_a_state_is_worth_what_going_on_is(chain):
    """end_of_sequence 'immediate': U is the mean value of the next state, given that there is one."""
    pi = chain.student.softmax(-1)
    number = {prefix: i for i, prefix in enumerate(chain.prefixes)}
    k = (pi * (chain.student.log_softmax(-1) - chain.teacher.log_softmax(-1))).sum(-1)
    values, outputs = torch.zeros(len(pi)).double(), torch.zeros(len(pi)).double()
    for prefix in sorted(chain.prefixes, key=len, reverse=True):
        s = number[prefix]
        going_on = [(pi[s, w], values[number[(*prefix, w)]]) for w in range(1, 4) if (*prefix, w) in number]
        if going_on:
            outputs[s] = sum(p * v for p, v in going_on) / sum(p for p, _ in going_on)
        values[s] = -k[s] + 0.9 * outputs[s]
    torch.testing.assert_close(exact_values(gae("split", 0.9, end="immediate"), chain), outputs, atol=1e-10, rtol=0)
    torch.testing.assert_close(exact_values(gae("value", 0.9, end="immediate"), chain), values, atol=1e-10, rtol=0)


def test_exact_values_follow_shaped_rewards(chain):
    clipped = gae("value", 1.0, shaping={"kind": "clip", "limit": 0.3})
    ratio = (chain.teacher.log_softmax(-1) - chain.student.log_softmax(-1)).clamp(-0.3, 0.3)
    last = [i for i, prefix in enumerate(chain.prefixes) if len(prefix) == 2]
    expected = (chain.student.softmax(-1) * ratio).sum(-1)
    torch.testing.assert_close(exact_values(clipped, chain)[last], expected[last], atol=1e-10, rtol=0)


def test_a_critic_says_what_was_asked_for(chain):
    method = gae("value")
    exact = told(method, chain, "exact").outputs
    assert float(told(method, chain, "zero").outputs.abs().max()) == 0.0
    noise = told(method, chain, "noisy", seed=1).outputs - exact
    assert 0.2 < float(noise.std()) < 1.0
    assert torch.equal(told(method, chain, "noisy", seed=1).outputs, exact + noise)
    assert told(load("tml-opd").method, chain).outputs is None


# What is reported


def test_bias_and_cosine_against_each_gradient(chain):
    sequence = measure(load("return-to-go").method, chain)
    assert sequence.sequence_reverse_kl.bias < 1e-12
    assert sequence.sequence_reverse_kl.cosine == pytest.approx(1.0)
    assert sequence.state_reverse_kl.bias > 0.05
    assert sequence.norm == pytest.approx(float(sequence_kl_gradient(chain)[1].norm()))
    state = measure(load("tml-opd").method, chain)
    assert state.state_reverse_kl.bias < 1e-12
    assert state.sequence_reverse_kl.bias > 0.05
    forward = measure(load("forward-kl").method, chain)
    assert forward.state_forward_kl.bias < 1e-12
    assert forward.state_reverse_kl.bias > 0.05


def test_no_update_has_bias_one_and_no_cosine(chain):
    silent = log_ratio(gates=[{"kind": "entropy", "threshold": 50.0}])
    measured = measure(silent, chain)
    assert (measured.norm, measured.variance, measured.released) == (0.0, 0.0, None)
    assert measured.sequence_reverse_kl.cosine is None
    assert measured.sequence_reverse_kl.bias == pytest.approx(1.0)


@pytest.mark.parametrize("name", names())
def test_recipes_rest_at_the_teacher_where_they_say_so(name):
    recipe = load(name)
    at_rest = measure(recipe.method, random_chain(3, 2, seed=2)).at_rest
    if recipe.fixed_point == "teacher":
        assert at_rest < 1e-4
    elif recipe.method.distillation().shift is not None and "raw" not in (recipe.method.shift or ""):
        assert at_rest > 1e-3


def test_where_mass_goes_by_the_law_of_one_step():
    """One state, four tokens of which the last two have r < 0, by hand."""
    from dataclasses import replace

    chain = enumerate_chain(4, 1)
    pi = torch.tensor([[0.2, 0.45, 0.15, 0.2]], dtype=torch.float64)
    p = torch.tensor([[0.37, 0.45, 0.13, 0.05]], dtype=torch.float64)
    chain = replace(chain, student=pi.log(), teacher=p.log(), reference=pi.log())
    pi, r = pi[0], (p / pi).log()[0]
    for baseline, suppressed in (("none", (2, 3)), ("expected", (3,))):  # with -K taken off, token 2 is not pushed down
        found = measure(log_ratio(credit={"baseline": baseline}), chain).released
        lost, supported, favourite, other = 0.0, 0.0, 0.0, 0.0
        for y in suppressed:
            gains = [float(pi[v] * (pi[v] + pi[y] - pi @ pi)) for v in range(4)]
            size = float(pi[y] * -(r[y] - (pi @ r if baseline == "expected" else 0.0)))
            lost += size * float(pi[y] * (1 - 2 * pi[y] + pi @ pi))
            supported += size * gains[0]
            favourite += size * gains[1]
            other += size * gains[5 - y]
        assert found.supported == pytest.approx(supported / lost)
        assert found.favourite == pytest.approx(favourite / lost)
        assert found.other == pytest.approx(other / lost)
    routed = measure(load("cr-opd").method, chain).released
    assert routed.supported + routed.favourite + routed.other == pytest.approx(1.0)
    assert routed.supported > measure(log_ratio(), chain).released.supported
