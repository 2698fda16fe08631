"""The update does not depend on how its batch is cut, padded or ordered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_core.objective.feedback import Feedback
from opd_core.objective.targets import DenseTarget
from opd_core.recipes import names
from opd_core.rollout import Rollouts, uniform_noise, visit, write
from opd_core.spec import MethodSpec
from opd_core.spec.variables.aggregation import Aggregation

CRITICS = ["gae value", "gae split", "gae differential", "gae per_token"]
METHODS = [*names(), *CRITICS]
# Chance is drawn token by token in the batch's own order.
ORDERED = ["random-half"]


@pytest.fixture
def gradients(world):
    """(loss of student and critic, gradients by name) of an update."""

    def take(method, batch=None, **options):
        update, module = world.update(method, batch, **options)
        losses = update.take_gradients()
        found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        return (losses.student, losses.critic), found

    return take


@pytest.fixture
def method_named():
    from opd_core.recipes import load

    def named(name):
        if name not in CRITICS:
            return load(name).method
        more = {"gae split": {"end_of_sequence": "immediate"}, "gae differential": {"detach_trunk": False}}
        critic = {"form": name.split()[1], **more.get(name, {})}
        credit = {"estimator": "gae", "gamma": 0.9, "lam": 0.5, "critic": critic}
        return MethodSpec.model_validate(
            {"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}, "credit": credit}
        )

    return named


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("per", "micro_tokens"), [("token", 1), ("sequence", 30), ("token", 60)])
def test_accumulation_changes_nothing(name, per, micro_tokens, gradients, method_named):
    method = method_named(name).model_copy(update={"aggregation": Aggregation(per=per)})
    assert_same(gradients(method, micro_tokens=micro_tokens), gradients(method))


@pytest.mark.parametrize("name", ["forward-kl", "cr-opd", "gae differential"])
def test_computing_activations_again_changes_nothing_but_memory(name, world, gradients, method_named):
    """And writing between two updates still has its cache."""
    method = method_named(name)
    module = world.module(method)
    kept = []

    def update():
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.nbytes) or tensor, lambda t: t):
            return gradients(method, module=module)

    plain, plain_bytes = update(), sum(kept)
    module.recompute, kept[:] = True, []
    again, less = update(), sum(kept)
    assert_same(again, plain)
    assert less < 0.7 * plain_bytes
    before = world.batch.rollouts
    prompts = [ids[mask].tolist() for ids, mask in zip(before.prompts, before.prompt_mask, strict=True)]
    noise = uniform_noise(0, 1, [(i, 0) for i in range(len(prompts))], 12)
    written = write(world.student, prompts, max_new_tokens=12, noise=noise)
    assert torch.equal(written.tokens, before.tokens)


@pytest.mark.parametrize("name", METHODS)
def test_wider_padding_changes_nothing(name, world, gradients, method_named):
    pad = torch.nn.functional.pad
    rollouts = world.batch.rollouts
    wide = Rollouts(
        pad(rollouts.prompts, (5, 0), value=7),
        pad(rollouts.prompt_mask, (5, 0), value=False),
        pad(rollouts.tokens, (0, 4), value=7),
        pad(rollouts.mask, (0, 4), value=False),
        pad(rollouts.behaviour_logp, (0, 4)),
        rollouts.truncated,
        pad(rollouts.present, (0, 4), value=False),
    )
    method = method_named(name)
    assert_same(gradients(method, replace(world.batch, rollouts=wide)), gradients(method))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ORDERED])
def test_the_order_of_sequences_changes_nothing(name, world, gradients, method_named):
    method = method_named(name)
    assert_same(gradients(method, world.batch.reorder(torch.tensor([3, 0, 5, 1, 4, 2]))), gradients(method))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "verifier-rl"])  # it asks no teacher
def test_a_shifted_teacher_is_another_update(name, gradients, method_named):
    """Teacher scores one position off must not pass for the right ones."""
    method = method_named(name)
    (_, right), (_, wrong) = gradients(method), gradients(method, shift=1)
    assert max(float((right[part] - wrong[part]).abs().max()) for part in right) > 1e-4


@pytest.mark.parametrize("name", CRITICS)
def test_the_critic_learns_from_its_own_loss_alone(name, world, gradients, method_named):
    """The student's gradient is the same without the critic's loss, unless the critic may shape the trunk."""
    method = method_named(name)
    _, found = gradients(method)
    quiet = method.model_copy(
        update={
            "credit": method.credit.model_copy(
                update={"critic": method.credit.critic.model_copy(update={"loss_weight": 1e-30})}
            )
        }
    )
    _, without = gradients(quiet)
    shaped = [not torch.equal(found[part], without[part]) for part in found if part.startswith("trunk")]
    assert any(shaped) is not method.credit.critic.detach_trunk
    assert all(float(found[part].abs().max()) > 0 for part in found if part.startswith("critic.last"))


def test_values_and_bootstrap_are_those_of_the_critic_at_the_states(world, method_named):
    """By hand: u = mean + std x raw; after the last token of a truncated rollout V = -(K + mean r) + gamma u."""
    method = method_named("gae differential")
    update, module = world.update(method)
    update.take_gradients()
    rollouts, feedback = world.batch.rollouts, update.feedback
    with torch.no_grad():
        ours, theirs = (visit(lm.trunk, rollouts) for lm in (world.student, world.teacher))
        values = module.critic(ours.rows, -0.5, 0.8)
        outputs = module.critic(ours.ends, -0.5, 0.8)
        nothing = torch.zeros(len(rollouts), 1, dtype=torch.long)
        kl = Feedback.from_rows(
            DenseTarget(world.student.head(ours.ends)),
            DenseTarget(world.teacher.head(theirs.ends)),
            nothing,
            torch.ones_like(nothing),
        ).kl[:, 0]
    torch.testing.assert_close(feedback.values[rollouts.mask], values, atol=1e-5, rtol=0)
    assert bool((feedback.values[~rollouts.mask] == 0).all())
    expected = torch.where(rollouts.truncated, 0.9 * outputs - (kl - 0.3), 0.0)
    torch.testing.assert_close(feedback.bootstrap, expected, atol=1e-5, rtol=0)
    assert torch.equal(feedback.truncated, rollouts.truncated)


def test_the_context_tells_special_tokens_from_ends(world, method_named):
    context = world.context(method_named("vopd"), world.batch)
    assert context.eos_ids == world.student.eos_ids
    assert world.student.pad_id in context.special_ids
    assert not set(context.special_ids) & set(context.eos_ids)
    assert max(context.special_ids) < world.student.vocab_size
    assert context.behaviour_logp is world.batch.rollouts.behaviour_logp


def test_favourites_come_with_the_feedbacks_own_scan(world, method_named, monkeypatch):
    """Asked for later, they cost another pass over the vocabulary."""
    again = []
    monkeypatch.setattr(Feedback, "_scan", lambda *arguments: again.append(arguments))
    update, _ = world.update(method_named("topk-tail"))
    update.take_gradients()
    assert again == []
