"""The self-check sees what is broken, for every recipe, whatever the method needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_core.diagnostics.self_check import TOLERANCE, self_check
from opd_core.objective import plan as plan_module
from opd_core.objective.targets import HiddenTarget
from opd_core.recipes import load, names
from opd_core.rollout import completion_hidden, write
from opd_core.spec import MethodSpec

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [12, 13, 14]]


def method(**variables) -> MethodSpec:
    return MethodSpec.model_validate({"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}, **variables})


@pytest.mark.parametrize("name", names())
def test_a_sound_run(name, world):
    student, rollouts, own, theirs = world
    found = self_check(load(name).method, rollouts, own, theirs, eos_ids=student.eos_ids, special_ids=(0,))
    if load(name).method.distillation().shift:
        assert found.force_at_teacher is None
        assert found.shift
    else:
        assert found.force_at_teacher < TOLERANCE
        assert found.shift is None
    assert found.force > TOLERANCE
    assert set(found.alignment) == {"-1", "0", "+1"}


@pytest.mark.parametrize("form", ["value", "split", "differential", "per_token"])
@pytest.mark.parametrize("end", ["return", "immediate"])
def test_every_form_of_the_critic_rests_at_the_teacher(form, end, world):
    _, rollouts, own, theirs = world
    credit = {"estimator": "gae", "gamma": 0.9, "critic": {"form": form, "end_of_sequence": end}}
    found = self_check(method(credit=credit), rollouts, own, theirs)
    assert found.force_at_teacher < TOLERANCE < found.force


def test_only_the_distillation_is_checked(world):
    """Regularizers and rewards pull elsewhere by design: what they do at the teacher is no defect."""
    _, rollouts, own, theirs = world
    pulled = method(regularizers=[{"kind": "entropy", "weight": 1.0}, {"kind": "reward"}])
    found, plain = (self_check(m, rollouts, own, theirs) for m in (pulled, method()))
    assert found == plain


def test_a_defect_is_seen(world, monkeypatch):
    _, rollouts, own, theirs = world
    sound = plan_module.log_ratio_draft

    def broken(*arguments):
        draft, credited, importance = sound(*arguments)
        defect = {**draft.components, "defect": torch.full_like(importance, 1e-3)}
        return replace(draft, components=defect), credited, importance

    monkeypatch.setattr(plan_module, "log_ratio_draft", broken)
    assert self_check(method(), rollouts, own, theirs).force_at_teacher > TOLERANCE


def test_it_knows_what_is_optimised(world):
    _, rollouts, own, theirs = world
    assert self_check(load("reverse-kl").method, rollouts, own, theirs).cosine_to_reverse_kl == pytest.approx(1.0)
    assert self_check(load("forward-kl").method, rollouts, own, theirs).cosine_to_reverse_kl < 0.99


def test_it_sees_shifted_teacher_scores(world):
    """A teacher that scores like the student is best aligned where it stands, and worse one off either way."""
    _, rollouts, own, _ = world
    forward_kl = load("forward-kl").method
    assert self_check(forward_kl, rollouts, own, own).aligned
    for shift in (-1, 1):
        moved = replace(own, hidden=own.hidden.roll(shift, 0))
        assert not self_check(forward_kl, rollouts, own, moved).aligned


def test_it_copes_with_one_token_answers(world):
    student, _, _, _ = world
    rollouts = write(student, PROMPTS, max_new_tokens=1, noise=None)
    with torch.no_grad():
        own = HiddenTarget(completion_hidden(student.trunk, rollouts), student.head)
    found = self_check(load("forward-kl").method, rollouts, own, own)
    assert found.alignment == {"-1": 0.0, "0": 0.0, "+1": 0.0}
    assert found.aligned
