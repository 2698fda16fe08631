"""A teacher with other tokens: what methods do to the tokens that both have, and that they leave the rest alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from oracle import gradient
from torch import Tensor

from opd_core.objective.aggregate import aggregation_of_heard, aggregation_weights
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.importance import importance_weights
from opd_core.objective.loss import force, plan_loss
from opd_core.objective.plan import PlanState, build_plan
from opd_core.objective.shared import Shared, TranslatedTarget
from opd_core.objective.targets import DenseTarget
from opd_core.recipes import load, names
from opd_core.spec import MethodSpec
from opd_core.spec.variables.aggregation import Aggregation
from opd_core.spec.variables.importance import Importance

LOG_RATIO = MethodSpec.model_validate({"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}})
V = 40  # larger than any recipe's k, so that nobody's favourites are everything
ABSENT = torch.tensor([3, 11, 12])
NOTHING = 1e-12


@dataclass(frozen=True)
class World:
    student: Tensor  # [B, T, V] logits
    teacher: Tensor  # [B, T, V] logits in the student's ids
    tokens: Tensor
    mask: Tensor

    def feedback(self, teacher=None, **context) -> Feedback:
        """Of a teacher as it is (Tensor [B, T, V]) or translated; with everything that any method may need."""
        mask = self.mask
        told = DenseTarget(self.teacher[mask]) if teacher is None else teacher
        batch, dtype = len(self.tokens), torch.float64
        found = Feedback.from_rows(
            DenseTarget(self.student[mask]),
            told,
            self.tokens,
            mask,
            context=FeedbackContext(
                **{
                    "reference": DenseTarget(0.9 * self.student[mask]),
                    "reward": (torch.arange(batch) % 2).to(dtype),
                    "group": torch.zeros(batch, dtype=torch.long),
                    "from_data": torch.zeros(batch, dtype=torch.bool),
                    "eos_ids": (0,),
                    **context,
                }
            ),
        )
        return replace(
            found,
            values=torch.zeros(self.tokens.shape, dtype=dtype),
            bootstrap=torch.zeros(batch, dtype=dtype),
            truncated=torch.arange(batch) % 2 == 0,
        )

    def translated(self, teacher=None, *, rows=None, absent=(), order=None, more=0) -> TranslatedTarget:
        """The teacher in an order of its own, with ``more`` tokens that the student does not have."""
        logits = (self.teacher if teacher is None else teacher)[self.mask]
        order = torch.arange(V) if order is None else order
        theirs = torch.full((len(logits), V + more), 0.3, dtype=torch.float64)
        theirs[:, order] = logits
        gone = torch.zeros(V, dtype=torch.bool)
        gone[torch.as_tensor(absent, dtype=torch.long)] = True
        everything = torch.ones(len(logits), dtype=torch.bool)
        return TranslatedTarget(DenseTarget(theirs), order, Shared(everything if rows is None else rows, gone))


@pytest.fixture
def world(generator) -> World:
    student, teacher = (torch.randn(3, 5, V, generator=generator, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(13, V, (3, 5), generator=generator)  # none of the absent ones
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    return World(student, teacher, tokens, mask)


@pytest.fixture
def order(generator) -> Tensor:
    return torch.randperm(V, generator=generator)


def planned(name, feedback):
    state = PlanState(running={"reward_mean": -0.3}, generator=torch.Generator().manual_seed(3))
    return build_plan(load(name).method if isinstance(name, str) else name, feedback, state)


def temperatures(name):
    objective = load(name).method.objective
    return {"temperature": objective.temperature, "teacher_temperature": objective.effective_teacher_temperature}


def value_and_gradient(plan, logits):
    logits = logits.clone().requires_grad_()
    loss = (plan_loss(plan, logits) * plan.weights).sum() / plan.normalizer
    (found,) = torch.autograd.grad(loss, logits)
    return loss.detach(), found


@pytest.mark.parametrize("name", names())
def test_with_all_tokens_and_rows_shared_every_recipe_is_what_it_was(name, world, order):
    """Value and gradient, through a vocabulary in another order."""
    found, expected = (
        value_and_gradient(planned(name, world.feedback(teacher, **temperatures(name))), world.student[world.mask])
        for teacher in (world.translated(order=order), None)
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=NOTHING, rtol=0)


def test_a_permuted_vocabulary_changes_no_number(world, order):
    found, expected = world.feedback(world.translated(order=order)), world.feedback()
    for field in ("log_ratio", "kl", "teacher_logp", "student_logp", "teacher_entropy"):
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), atol=NOTHING, rtol=0)
    for mass in found.shared_mass:
        torch.testing.assert_close(mass, torch.ones_like(mass))


def test_numbers_are_those_of_the_conditional_distributions(world, order):
    found = world.feedback(world.translated(order=order, absent=ABSENT, more=4))
    kept = torch.ones(V, dtype=torch.bool)
    kept[ABSENT] = False
    own, theirs = (logits[world.mask][:, kept].log_softmax(-1) for logits in (world.student, world.teacher))
    place = kept.cumsum(0)[world.tokens[world.mask]] - 1
    ratio = (theirs - own).gather(1, place[:, None])[:, 0]
    torch.testing.assert_close(found.log_ratio[world.mask], ratio, atol=NOTHING, rtol=0)
    torch.testing.assert_close(found.kl[world.mask], (own.exp() * (own - theirs)).sum(1), atol=NOTHING, rtol=0)
    student_mass, teacher_mass = found.shared_mass
    torch.testing.assert_close(student_mass, world.student[world.mask].softmax(-1)[:, kept].sum(1))
    exp = world.teacher[world.mask].exp()
    everything = exp.sum(1) + 4 * torch.tensor(0.3, dtype=torch.float64).exp()
    torch.testing.assert_close(teacher_mass, exp[:, kept].sum(1) / everything)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "total_variation"])
def test_a_direct_force_is_that_of_the_conditional_divergence(kind, world, order):
    method = MethodSpec.model_validate({"objective": {"route": "direct", "divergence": kind, "beta": 0.3}})
    feedback = world.feedback(world.translated(order=order, absent=ABSENT, more=4))
    pushed = force(build_plan(method, feedback), world.student[world.mask])
    kept = torch.ones(V, dtype=torch.bool)
    kept[ABSENT] = False
    assert float(pushed[:, ABSENT].abs().max()) == 0.0
    for row, (s, t) in enumerate(zip(world.student[world.mask], world.teacher[world.mask], strict=True)):
        expected = -gradient(kind, s[kept], t[kept], 0.3)
        torch.testing.assert_close(pushed[row, kept], expected, atol=NOTHING, rtol=0)


def test_the_log_ratio_route_is_the_conditional_reverse_kl_in_expectation(generator):
    """Over every shared token that may be sampled at one state: E[r score] = -grad KL, and 0 on absent tokens."""
    student, teacher = (torch.randn(V, generator=generator, dtype=torch.float64) for _ in range(2))
    kept = torch.ones(V, dtype=torch.bool)
    kept[ABSENT] = False
    sampled = kept.nonzero()
    world = World(student.expand(len(sampled), 1, V), teacher.expand(len(sampled), 1, V), sampled, sampled >= 0)
    plan = build_plan(LOG_RATIO, world.feedback(world.translated(absent=ABSENT)))
    pushed = force(plan, world.student[:, 0])
    expected = (student[kept].softmax(-1)[:, None] * pushed).sum(0)
    torch.testing.assert_close(
        expected[kept], -gradient("reverse_kl", student[kept], teacher[kept]), atol=1e-12, rtol=0
    )
    assert float(expected[ABSENT].abs().max()) == 0.0


@pytest.mark.parametrize("name", names())
def test_no_force_where_nothing_is_said(name, world, order):
    """Rows that are not aligned: exactly 0 from the distillation. Absent tokens of aligned rows: exactly 0 from all."""
    rows = torch.tensor([True, False, True, True, False, True, False, True, True])
    method = load(name).method.distillation()
    teacher = world.translated(order=order, absent=ABSENT, rows=rows, more=2)
    tokens = world.tokens.clone()
    silent = torch.zeros_like(world.mask)
    silent[world.mask] = ~rows
    tokens[silent] = ABSENT[0]  # not in the teacher's vocabulary, which is why
    feedback = replace(world, tokens=tokens).feedback(teacher, **temperatures(name))
    pushed = force(planned(method, feedback), world.student[world.mask])
    assert bool(pushed.isfinite().all())
    assert float(pushed[~rows].abs().max()) == 0.0
    assert float(pushed[:, ABSENT].abs().max()) == 0.0
    assert float(feedback.log_ratio[silent].abs().max()) < NOTHING
    assert float(feedback.kl[silent].abs().max()) < NOTHING
    assert name == "sft" or "verifier" in name or float(pushed[rows].abs().max()) > 1e-6


@pytest.mark.parametrize("name", names())
def test_no_force_where_the_teacher_is_the_student_in_other_words(name, world, order, generator):
    """Tokens of its own that take most of the teacher's mass change nothing: they are left out."""
    method = load(name).method.distillation()
    if method.shift is not None:
        pytest.skip("its optimum is not the teacher")
    nearly = world.student + 1e-6 * torch.randn(world.student.shape, generator=generator, dtype=torch.float64)
    teacher = world.translated(nearly, order=order, absent=ABSENT, more=300)
    pushed = force(build_plan(method, world.feedback(teacher, **temperatures(name))), world.student[world.mask])
    assert float(pushed.abs().max()) < 1e-5


@pytest.mark.parametrize("per", ["token", "sequence", "constant"])
@pytest.mark.parametrize("name", ["forward-kl", "tml-opd"])
def test_rows_that_are_not_aligned_are_not_counted(per, name, world, order):
    """The step is that of a batch without them (with immediate credit: nothing passes through them)."""
    method = load(name).method.model_copy(update={"aggregation": Aggregation(per=per, constant=7)})
    rows = torch.tensor([True, False, True, True, False, True, False, False, False])
    plan = build_plan(method, world.feedback(world.translated(order=order, rows=rows)))
    loss, found = value_and_gradient(plan, world.student[world.mask])
    kept = torch.zeros_like(world.mask)
    kept[world.mask] = rows
    assert torch.equal(plan.view.gate_by_name["aligned"] > 0, kept)
    fewer = replace(world, mask=kept)
    alone_loss, expected = value_and_gradient(build_plan(method, fewer.feedback()), fewer.student[kept])
    torch.testing.assert_close(loss, alone_loss, atol=NOTHING, rtol=0)
    torch.testing.assert_close(found[rows], expected, atol=NOTHING, rtol=0)
    assert float(found[~rows].abs().max()) == 0.0


@pytest.mark.parametrize("count", [0, 4])
def test_regularizers_act_on_all_rows_with_the_counts_of_all(count, world):
    """The loss is a mean over aligned rows of the distillation, plus a mean over all rows of the entropy bonus."""
    rule = [{"kind": "entropy", "weight": 0.5}]
    method = MethodSpec.model_validate({**load("forward-kl").method.model_dump(), "regularizers": rule})
    rows = torch.arange(9) < count
    plan = build_plan(method, world.feedback(world.translated(rows=rows, absent=ABSENT)))
    loss, _ = value_and_gradient(plan, world.student[world.mask])

    def logp(logits):
        hidden = rows[:, None] & torch.isin(torch.arange(V), ABSENT)
        return logits[world.mask].masked_fill(hidden, -1e9).log_softmax(-1)

    own, theirs = logp(world.student), logp(world.teacher)
    divergence = (theirs.exp() * (theirs - own)).sum(1)[rows].sum() / max(count, 1)
    bonus = 0.5 * (torch.tensor(float(V), dtype=torch.float64).log() + (own.exp() * own).sum(1)).mean()
    torch.testing.assert_close(loss, divergence + bonus, atol=NOTHING, rtol=0)


def test_a_reference_is_given_the_shared_tokens_too(world, order):
    """Student, teacher and reference in one: nothing moves."""
    rule = [{"kind": "reference_kl", "weight": 0.5, "direction": "forward"}]
    method = MethodSpec.model_validate({**load("forward-kl").method.model_dump(), "regularizers": rule})
    teacher = world.translated(world.student, order=order, absent=ABSENT)
    feedback = world.feedback(teacher, reference=DenseTarget(world.student[world.mask]))
    pushed = force(build_plan(method, feedback), world.student[world.mask])
    assert float(pushed.abs().max()) < NOTHING


def test_counts_of_the_heard_tokens_with_two_origins():
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    heard = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool()
    data = torch.tensor([False, True])
    gates = mask.double()
    aggregation = Aggregation(by_origin=True)
    weights, normalizer, others = aggregation_of_heard(
        aggregation, mask, heard, gates, data, of_all=aggregation_weights(aggregation, mask, gates, data)
    )
    # Each origin is a mean over its own tokens: of those heard, 1 by the student and 2 of data; of all, 3 and 2.
    share = weights / normalizer
    torch.testing.assert_close(share[heard[mask]], torch.tensor([1.0, 0.5, 0.5]).double())
    torch.testing.assert_close(share * others, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.5, 0.5]).double())


def test_the_critic_keeps_the_counts_of_all_tokens(world):
    rows = torch.arange(9) < 3
    plans = [planned("gae-opd", world.feedback(world.translated(rows=some))) for some in (rows, torch.arange(9) >= 0)]
    assert plans[0].normalizer == 3.0
    scales = [plan.critic.loss_weight / plan.normalizer for plan in plans]
    assert scales[0] == pytest.approx(scales[1])


def test_importance_weights_are_those_of_the_whole_vocabulary(world, order):
    """pi / mu of what was really sampled: 1 on-policy, though both models are conditioned."""
    mu = torch.zeros(world.mask.shape, dtype=torch.float64)
    own = world.student[world.mask].log_softmax(-1).gather(1, world.tokens[world.mask][:, None])[:, 0]
    mu[world.mask] = own - torch.linspace(-0.2, 0.3, 9, dtype=torch.float64)
    feedback = world.feedback(world.translated(order=order, absent=ABSENT), behaviour_logp=mu)
    weights, _ = importance_weights(Importance(kind="truncated", cap=10.0), feedback, torch.ones(9).double())
    torch.testing.assert_close(weights, torch.linspace(-0.2, 0.3, 9, dtype=torch.float64).exp())


def test_temperatures_are_each_model_s_own(world, order):
    feedback = world.feedback(
        world.translated(order=order, absent=ABSENT, rows=torch.arange(9) != 4),
        temperature=0.7,
        teacher_temperature=1.3,
    )
    kept = torch.ones(V, dtype=torch.bool)
    kept[ABSENT] = False
    own = (world.student[world.mask][:, kept] / 0.7).log_softmax(-1)
    theirs = (world.teacher[world.mask][:, kept] / 1.3).log_softmax(-1)
    expected = (own.exp() * (own - theirs)).sum(1)
    expected[4] = 0.0
    torch.testing.assert_close(feedback.kl[world.mask], expected, atol=NOTHING, rtol=0)


def test_a_completed_distribution_says_about_absent_tokens_what_the_student_does(world):
    shared = world.translated(absent=ABSENT, rows=torch.arange(9) > 0).shared
    own, theirs = (logits[world.mask].log_softmax(-1) for logits in (world.student, world.teacher))
    found = shared.complete(shared.condition(theirs), own)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(9).double())
    torch.testing.assert_close(found[1:, ABSENT], own[1:, ABSENT])
    torch.testing.assert_close(found[0], theirs[0])


def test_a_translated_teacher_must_know_whom_it_stands_beside(world):
    with pytest.raises(ValueError, match="whom it stands beside"):
        world.translated().log_probs(1.0)
