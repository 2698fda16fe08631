"""The update does not depend on how its batch is cut, padded or ordered."""

from __future__ import annotations

import pytest
import torch

from opd_core.models import load_model
from opd_core.objective.plan import PlanState
from opd_core.recipes import load, names
from opd_core.rollout import Rollouts, uniform_noise, write
from opd_core.spec import ModelSpec
from opd_core.spec.variables.aggregation import Aggregation
from opd_core.teachers import score
from opd_core.training.student_step import StudentStep
from opd_core.training.update import Update

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [3, 4]]


@pytest.fixture(scope="module")
def pair(tiny_world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
        return tuple(
            load_model(ModelSpec(model=str(path)), device="cpu", trainable=role == "student", role=role)
            for role, path in (("student", tiny_world.student), ("teacher", tiny_world.teacher))
        )


@pytest.fixture(scope="module")
def rollouts(pair):
    noise = uniform_noise(0, 1, [(i, 0) for i in range(len(PROMPTS))], 12)
    written = write(pair[0], PROMPTS, max_new_tokens=12, noise=noise)
    assert len(set(written.lengths.tolist())) > 1  # a test of equal lengths would hide a local normaliser
    return written


def gradients(pair, rollouts, method, micro_tokens=10_000):
    student, teacher = pair
    module = StudentStep(student.trunk, student.head)
    module.zero_grad(set_to_none=True)
    update = Update(
        method=method,
        module=module,
        rollouts=rollouts,
        scores=score(teacher, rollouts, micro_tokens=micro_tokens),
        micro_tokens=micro_tokens,
        state=PlanState(),
    )
    loss = update.take_gradients()
    return loss, {name: p.grad.clone() for name, p in student.model.named_parameters()}


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    for name, gradient in expected[1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5 * scale, rtol=0)


def method_of(name, per):
    return load(name).method.model_copy(update={"aggregation": Aggregation(per=per)})


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("per", ["token", "sequence"])
@pytest.mark.parametrize("micro_tokens", [1, 30, 60])
def test_accumulation_changes_nothing(name, per, micro_tokens, pair, rollouts):
    method = method_of(name, per)
    assert_same(gradients(pair, rollouts, method, micro_tokens), gradients(pair, rollouts, method))


@pytest.mark.parametrize("name", names())
def test_wider_padding_changes_nothing(name, pair, rollouts):
    pad = torch.nn.functional.pad
    wide = Rollouts(
        pad(rollouts.prompts, (5, 0), value=7),
        pad(rollouts.prompt_mask, (5, 0), value=False),
        pad(rollouts.tokens, (0, 4), value=7),
        pad(rollouts.mask, (0, 4), value=False),
        pad(rollouts.behaviour_logp, (0, 4)),
        rollouts.truncated,
    )
    method = method_of(name, "token")
    assert_same(gradients(pair, wide, method), gradients(pair, rollouts, method))


@pytest.mark.parametrize("name", names())
def test_the_order_of_sequences_changes_nothing(name, pair, rollouts):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    fields = (getattr(rollouts, field)[order] for field in Rollouts.__dataclass_fields__)
    method = method_of(name, "token")
    assert_same(gradients(pair, Rollouts(*fields), method), gradients(pair, rollouts, method))


@pytest.mark.parametrize("name", names())
def test_a_shifted_teacher_is_another_update(name, pair, rollouts):
    """Teacher scores one position off must not pass for the right ones."""
    from opd_core.objective.targets import HiddenTarget

    student, teacher = pair
    module = StudentStep(student.trunk, student.head)
    found = []
    for shift in (0, 1):
        module.zero_grad(set_to_none=True)
        scores = score(teacher, rollouts, micro_tokens=10_000)
        moved = HiddenTarget(scores.hidden.roll(shift, 0), scores.head)
        update = Update(
            method=load(name).method,
            module=module,
            rollouts=rollouts,
            scores=moved,
            micro_tokens=10_000,
            state=PlanState(),
        )
        found.append(update.take_gradients())
    assert abs(found[0] - found[1]) > 1e-3
