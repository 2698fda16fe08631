"""The exact laboratory: what a method does in expectation, and how noisily, by enumeration instead of sampling.

Every sequence that the student can write (chain.py) becomes a batch that goes through the real ``Feedback``, the real
``build_plan`` and the real ``force``; nothing of a method is written a second time here. The estimate of a batch is the
sum over each sequence's tokens of the force at the token's state (gates included, aggregation left out, so that
sequence gradients compare in scale), averaged over the batch. Its mean and the trace of its covariance are taken under
the student's own sequence probabilities.

A batch is one sequence where the method treats sequences one by one. Where it compares them (group and batch baselines,
rewards, quantiles, trajectory weights) a batch is a pair of independent sequences of one prompt, on a smaller chain.
Random gates are averaged over ``draws`` seeded draws per pair: the one figure here that is not exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from opd_core.objective.chain import EOS, Chain, random_chain, sequence_kl_gradient, state_kl_gradients
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import force
from opd_core.objective.plan import PlanState, UpdatePlan, build_plan
from opd_core.objective.targets import DenseTarget
from opd_core.spec import MethodSpec
from opd_core.spec.variables.credit import Credit
from opd_core.spec.variables.gates import RandomGate

CriticKind = Literal["exact", "zero", "noisy"]
Reach = Literal["sequence", "group", "batch"]

DRAWS = 4
_CRITIC_NOISE = 0.5  # nats, standard deviation of the noisy critic's error
_BATCH_BASELINES = ("batch", "position")
_GROUP_GATES = ("scope", "agreement")
_BATCH_GATES = ("tip", "ta_opd", "fire", "sequence", "random")
_GROUP_REGULARIZERS = ("reward", "reward_sign")
_NOTHING = 1e-12


@dataclass(frozen=True)
class Comparison:
    """An expected update against the descent direction of an exact gradient."""

    bias: float  # norm of the difference / norm of the gradient
    cosine: float | None  # None where the update or the gradient is zero


@dataclass(frozen=True)
class Released:
    """Where the mass of suppressed tokens lands, to first order: shares of what they lose, which sum to 1.

    A share can be negative (those tokens lose mass, too) or above 1.
    """

    supported: float  # tokens to which the teacher gives more than the student does
    favourite: float  # the student's most probable token, where the teacher does not give it more
    other: float


@dataclass(frozen=True)
class Measurement:
    """What a method does on a chain. Forces are in nats; norms are over the whole table of logits."""

    vocabulary: int
    cap: int
    batch: int  # sequences per batch: 1, or 2 where the method compares sequences
    draws: int  # of each random gate; 0 = no chance is involved and every figure is exact
    norm: float  # of the expected update
    sequence_reverse_kl: Comparison
    state_reverse_kl: Comparison
    state_forward_kl: Comparison
    variance: float  # batch x trace of the covariance / squared norm of the sequence gradient
    at_rest: float  # root mean square norm of the update where teacher = student
    released: Released | None  # None where no suppressed token loses mass


def reach(method: MethodSpec) -> Reach:
    """How far a token's force looks: at its own sequence, at those of its prompt, or at the whole batch."""
    kinds = {gate.kind for gate in method.gates}
    controlled = any(gate.control == "random" for gate in method.gates if not isinstance(gate, RandomGate))
    if controlled or kinds & set(_BATCH_GATES) or method.credit.baseline in _BATCH_BASELINES:
        return "batch"
    compared = any(rule.kind in _GROUP_REGULARIZERS for rule in method.regularizers)
    if compared or kinds & set(_GROUP_GATES) or method.credit.baseline == "group":
        return "group"
    return "sequence"


def uses_chance(method: MethodSpec) -> bool:
    """Whether a gate draws lots."""
    return any(isinstance(gate, RandomGate) or gate.control == "random" for gate in method.gates)


def default_chain(method: MethodSpec, seed: int = 0) -> Chain:
    """156 states and 781 sequences; for methods that compare sequences 4 states and 13 sequences, 169 pairs."""
    return random_chain(6, 4, seed=seed) if reach(method) == "sequence" else random_chain(4, 2, seed=seed)


def measure(method: MethodSpec, chain: Chain, *, critic: CriticKind = "exact", seed: int = 0) -> Measurement:
    """The method on the chain. ``critic``: the values that gae sees; ``seed``: of noisy values and of random gates."""
    draws = DRAWS if uses_chance(method) else 0
    estimates = _estimates(method, chain, told(method, chain, critic, seed), draws, seed)
    expected = estimates.mean(chain)
    _, sequence = sequence_kl_gradient(chain)
    reverse, forward = state_kl_gradients(chain)
    variance = (estimates.second_moment - expected.square().sum()).clamp(min=0.0)
    rest = chain.at_rest()
    resting = _estimates(method, rest, told(method, rest), min(draws, 1), seed)
    return Measurement(
        vocabulary=chain.vocabulary,
        cap=chain.cap,
        batch=estimates.batch,
        draws=draws,
        norm=float(expected.norm()),
        sequence_reverse_kl=_compare(expected, -sequence),
        state_reverse_kl=_compare(expected, -reverse),
        state_forward_kl=_compare(expected, -forward),
        variance=float(estimates.batch * variance / sequence.square().sum()),
        at_rest=float(resting.second_moment.sqrt()),
        released=_released(chain, estimates),
    )


def expected_update(method: MethodSpec, chain: Chain, *, critic: CriticKind = "exact", seed: int = 0) -> Tensor:
    """[S, V] the mean of the method's force on the student's table of logits."""
    draws = DRAWS if uses_chance(method) else 0
    return _estimates(method, chain, told(method, chain, critic, seed), draws, seed).mean(chain)


def ended_with_one(chain: Chain) -> Tensor:
    """[B] the laboratory's verifier: 1 for a sequence that ended and holds token 1, else 0."""
    holds = ((chain.tokens == 1) & chain.mask).any(1)
    return (holds & ~chain.truncated).to(chain.student.dtype)


@dataclass(frozen=True)
class Told:
    """What a method is told beside both models: its critic's output per state, and running statistics."""

    outputs: Tensor | None  # [S]
    running: dict[str, float]


def plan_rows(
    method: MethodSpec,
    chain: Chain,
    rows: Tensor,
    group: Tensor,
    known: Told,
    generator: torch.Generator | None = None,
) -> tuple[UpdatePlan, Tensor]:
    """(the real plan of a batch of the chain's sequences, the student's logits [N, V] of its tokens).

    rows [B] number sequences of the chain, group [B] the prompt that each belongs to. The context holds everything that
    a method may ask for: the student wrote the sequences itself, none came from data.
    """
    states, mask = chain.states[rows], chain.mask[rows]
    objective = method.objective
    context = FeedbackContext(
        behaviour_logp=chain.token_logp(chain.student)[rows],
        temperature=objective.temperature,
        teacher_temperature=objective.teacher_temperature,
        reference=DenseTarget(chain.reference[states[mask]]),
        reward=ended_with_one(chain)[rows],
        group=group,
        from_data=torch.zeros(len(rows), dtype=torch.bool),
        eos_ids=(EOS,),
    )
    feedback = Feedback.from_logits(
        chain.student[states],
        chain.teacher[states],
        chain.tokens[rows],
        mask,
        values=None if known.outputs is None else known.outputs[states] * mask,
        bootstrap=chain.student.new_zeros(len(rows)),  # the chain has no state after the cap
        truncated=chain.truncated[rows],
        context=context,
    )
    plan = build_plan(method, feedback, PlanState(running=known.running, generator=generator))
    return plan, chain.student[states[mask]]


@dataclass(frozen=True)
class _Estimates:
    """Forces [N, V] of all tokens of all batches."""

    forces: Tensor
    states: Tensor  # [N]
    tokens: Tensor  # [N]
    batches: Tensor  # [N] number of the batch
    weights: Tensor  # [N] probability of the batch
    batch: int  # sequences in each

    def mean(self, chain: Chain) -> Tensor:
        """[S, V]."""
        weighted = self.weights[:, None] * self.forces / self.batch
        return torch.zeros_like(chain.student).index_add(0, self.states, weighted)

    @property
    def second_moment(self) -> Tensor:
        """The mean squared norm of a batch's estimate; a scalar."""
        cells = torch.stack([self.batches, self.states], 1)
        _, cell = torch.unique(cells, dim=0, return_inverse=True)  # two sequences may share a state
        count = int(cell.max()) + 1
        total = self.forces.new_zeros(count, self.forces.shape[1]).index_add(0, cell, self.forces / self.batch)
        weight = self.weights.new_zeros(count).index_copy(0, cell, self.weights)
        return (weight * total.square().sum(1)).sum()


def _estimates(method: MethodSpec, chain: Chain, known: Told, draws: int, seed: int) -> _Estimates:
    parts = list(_builds(method, chain, draws))
    forces, states, tokens, batches, weights = [], [], [], [], []
    for number, (rows, group, probability) in enumerate(parts):
        generator = torch.Generator().manual_seed(seed * len(parts) + number) if draws else None
        plan, logits = plan_rows(method, chain, rows, group, known, generator)
        mask = chain.mask[rows]
        forces.append(force(plan, logits))
        states.append(chain.states[rows][mask])
        tokens.append(plan.tokens)
        batches.append(group[:, None].expand_as(mask)[mask])
        weights.append(probability[:, None].expand_as(mask)[mask])
    return _Estimates(
        torch.cat(forces), torch.cat(states), torch.cat(tokens), torch.cat(batches), torch.cat(weights), _batch(method)
    )


def _batch(method: MethodSpec) -> int:
    return 1 if reach(method) == "sequence" else 2


def _builds(method: MethodSpec, chain: Chain, draws: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(sequences, number of the batch, its probability), each [B], for every call of ``build_plan``.

    Batches that cannot see each other share a call: all of them where the method looks no further than its prompt.
    """
    own = chain.probabilities
    rows = torch.arange(len(own))
    if _batch(method) == 1:
        yield rows, rows, own
        return
    pairs = torch.cartesian_prod(rows, rows)
    repeats = max(1, draws)
    probability = own[pairs].prod(1) / repeats
    if reach(method) == "group":
        number = torch.arange(len(pairs)).repeat_interleave(2)
        yield pairs.flatten(), number, probability.repeat_interleave(2)
        return
    for build in range(len(pairs) * repeats):
        pair = build % len(pairs)
        yield pairs[pair], torch.full((2,), build), probability[pair].expand(2)


def told(method: MethodSpec, chain: Chain, critic: CriticKind = "exact", seed: int = 0) -> Told:
    """What the method is told on this chain: its critic's output if it has one, exact, zero, or exact with noise."""
    if method.credit.estimator != "gae":
        return Told(None, {})
    # The running average is what it tends to: the mean reward of the tokens that the student writes.
    rewards = _everything(method.model_copy(update={"credit": Credit()}), chain, Told(None, {})).view.advantages
    own = chain.probabilities
    average = float((own @ rewards.sum(1)) / (own @ chain.mask.sum(1).to(own.dtype)))
    running = {"reward_mean": average}
    if critic == "zero":
        return Told(torch.zeros_like(chain.student[:, 0]), running)
    outputs = _settled_outputs(method, chain, running)
    if critic == "noisy":
        generator = torch.Generator().manual_seed(seed)
        outputs = outputs + _CRITIC_NOISE * torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    return Told(outputs, running)


def exact_values(method: MethodSpec, chain: Chain) -> Tensor:
    """[S] the output of the exact critic of a method with credit.estimator 'gae': V, or U where the form splits."""
    outputs = told(method, chain).outputs
    if outputs is None:
        raise ValueError(f"credit.estimator must be 'gae' to have a critic (got '{method.credit.estimator}')")
    return outputs


def _settled_outputs(method: MethodSpec, chain: Chain, running: dict[str, float]) -> Tensor:
    """[S] the critic that its own targets agree with: at each state, their mean over all sequences through it.

    Found by repetition. Each round gets one more state from the end right; where a target asks for the value of its own
    state (end_of_sequence 'immediate') the error shrinks by the probability of ending.
    """
    seen = chain.probabilities[:, None].expand_as(chain.mask)[chain.mask]
    states = chain.states[chain.mask]
    outputs = torch.zeros_like(chain.student[:, 0])
    for _ in range(1000):
        targets = _everything(method, chain, Told(outputs, running)).critic
        assert targets is not None
        asked = torch.zeros_like(outputs).index_add(0, states, seen * targets.weights)
        learned = torch.zeros_like(outputs).index_add(0, states, seen * targets.weights * targets.values)
        learned = torch.where(asked > 0, learned / asked.clamp(min=_NOTHING), 0.0)
        if float((learned - outputs).abs().max()) < _NOTHING:
            return learned
        outputs = learned
    raise RuntimeError("the critic's targets do not settle: no table of values agrees with them")


def _everything(method: MethodSpec, chain: Chain, known: Told) -> UpdatePlan:
    """The plan of all sequences at once, without what compares them: what the critic is asked does not depend on it."""
    alone = method.model_copy(update={"gates": (), "regularizers": ()})
    rows = torch.arange(len(chain.tokens))
    return plan_rows(alone, chain, rows, rows, known)[0]


def _compare(update: Tensor, direction: Tensor) -> Comparison:
    size, length = float(update.norm()), float(direction.norm())
    cosine = float((update * direction).sum()) / (size * length) if min(size, length) > _NOTHING else None
    return Comparison(bias=float((update - direction).norm()) / max(length, _NOTHING), cosine=cosine)


def _released(chain: Chain, estimates: _Estimates) -> Released | None:
    """Over sampled tokens y with r(y) < 0 that lose mass: delta pi_v = pi_v (f_v - sum pi f), v != y, by kind of v."""
    pi = chain.student.softmax(-1)[estimates.states]
    ratio = (chain.teacher.log_softmax(-1) - chain.student.log_softmax(-1))[estimates.states]
    change = pi * (estimates.forces - (pi * estimates.forces).sum(1, keepdim=True))
    own = estimates.tokens[:, None]
    lost = -change.gather(1, own)[:, 0]
    suppressed = (ratio.gather(1, own)[:, 0] < 0) & (lost > _NOTHING)
    weights = torch.where(suppressed, estimates.weights, 0.0)
    total = float((weights * lost).sum())
    if total <= 0.0:
        return None
    others = torch.ones_like(pi, dtype=torch.bool).scatter(1, own, False)
    supported = others & (ratio > 0)
    favourite = others & ~supported & (pi == pi.max(1, keepdim=True).values)

    def share(kind: Tensor) -> float:
        return float((weights * (change * kind).sum(1)).sum()) / total

    return Released(share(supported), share(favourite), share(others & ~supported & ~favourite))
