"""Who scores: contexts, moving averages, several teachers at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_core.models import load_model
from opd_core.objective.targets import DenseTarget, HiddenTarget, MixtureTarget
from opd_core.spec import ModelSpec, UserError
from opd_core.teachers import Teacher, Voice, load_voices, score_with_ends
from tests.teachers.conftest import scored_world

CONTEXT = "{answer} = {prompt}"


@pytest.fixture
def world(tiny_world, tiny_spec):
    """Student, teacher, a task with tags, and rollouts of six of its problems."""
    columns = {"demonstration_column": "answer", "tag_column": "digit"}
    student, teacher, task, asked = scored_world(tiny_world, problems=6, **columns)
    tagged = [replace(problem, tag="ab"[i % 2]) for i, problem in enumerate(asked.problems)]
    return student, teacher, task, replace(asked, problems=tagged)


def rows(target):
    return target[slice(None)].log_probs(1.0)


def alone(lm, asked):
    return score_with_ends(lm, asked.rollouts, micro_tokens=10_000)


def test_a_mixture_is_the_weighted_mean_of_probabilities():
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(5, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = torch.tensor([[0.3, 0.7], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    mixture = MixtureTarget(weights, (DenseTarget(one), DenseTarget(two)))
    for temperature in (1.0, 0.7):
        p, q = (logits.div(temperature).softmax(-1) for logits in (one, two))
        expected = weights[:, :1] * p + weights[:, 1:] * q
        torch.testing.assert_close(mixture.log_probs(temperature).exp(), expected, atol=1e-12, rtol=0)
    assert torch.equal(mixture[torch.tensor([1])].log_probs(1.0), one[1:2].log_softmax(-1))
    torch.testing.assert_close(mixture[2:4].log_probs(1.0), mixture.log_probs(1.0)[2:4])


def test_teachers_by_tag_are_each_asked_about_their_own_problems_only(world):
    student, teacher, task, asked = world
    both = Teacher(
        [Voice("a", student, tags=frozenset("a")), Voice("b", teacher, tags=frozenset("b"))],
        task,
    )
    scored = both.score(asked, micro_tokens=10_000)
    own, theirs = (rows(alone(lm, asked).rows) for lm in (student, teacher))
    of_a = torch.tensor([problem.tag == "a" for problem in asked.problems]).repeat_interleave(asked.rollouts.lengths)
    expected = torch.where(of_a[:, None], own, theirs)
    torch.testing.assert_close(rows(scored.scores.rows), expected, atol=1e-5, rtol=0)
    ends = torch.where(
        torch.tensor([problem.tag == "a" for problem in asked.problems])[:, None],
        rows(alone(student, asked).ends),
        rows(alone(teacher, asked).ends),
    )
    torch.testing.assert_close(rows(scored.scores.ends), ends, atol=1e-5, rtol=0)
    sizes = (asked.rollouts.mask.sum(1) + asked.rollouts.prompt_mask.sum(1)).tolist()
    assert scored.of_each == (sum(sizes[0::2]), sum(sizes[1::2]))
    assert scored.tokens == sum(sizes)


def test_an_ensemble_mixes_and_every_teacher_reads_everything(world):
    student, teacher, task, asked = world
    scored = Teacher([Voice("a", student, weight=1.0), Voice("b", teacher, weight=3.0)], task).score(
        asked, micro_tokens=10_000
    )
    own, theirs = (rows(alone(lm, asked).rows).exp() for lm in (student, teacher))
    torch.testing.assert_close(rows(scored.scores.rows).exp(), 0.25 * own + 0.75 * theirs, atol=1e-6, rtol=0)
    assert scored.of_each[0] == scored.of_each[1] == scored.tokens // 2


def test_a_tag_that_nobody_speaks_for_is_refused(world):
    student, _, task, _ = world
    with pytest.raises(UserError, match="nobody speaks for the tag '7'") as raised:
        Teacher([Voice("a", student, tags=frozenset("a")), Voice("b", student, tags=frozenset("b"))], task).check_tags()
    assert raised.value.param == "teacher.mixture"


def test_a_context_is_read_before_the_same_completion(world):
    """Row by row the distributions are those of a single forward over context and completion."""
    student, teacher, task, asked = world
    scored = Teacher([Voice("t", teacher, context=CONTEXT)], task).score(asked, micro_tokens=40)
    found = rows(scored.scores.rows).split(asked.rollouts.lengths.tolist())
    for row, problem in enumerate(asked.problems):
        prompt = task.encode(replace(problem, prompt=f"{problem.answer} = {problem.raw}"))
        tokens = asked.rollouts.tokens[row][asked.rollouts.mask[row]].tolist()
        ids = torch.tensor([prompt + tokens])
        with torch.no_grad():
            hidden = teacher.trunk(ids, torch.ones_like(ids)).last_hidden_state[0, len(prompt) - 1 : -1]
        expected = HiddenTarget(hidden, teacher.head).log_probs(1.0)
        torch.testing.assert_close(found[row], expected, atol=2e-5, rtol=0)
    assert scored.tokens > alone_tokens(asked)
    assert student is not teacher


def test_what_others_have_begun_is_read_after_the_context(world):
    _, teacher, task, asked = world
    begun = [[5 + row, 7][: row % 3] for row in range(6)]
    scored = Teacher([Voice("t", teacher, context=CONTEXT)], task).score(replace(asked, begun=begun), micro_tokens=40)
    found = rows(scored.scores.rows).split(asked.rollouts.lengths.tolist())
    for row, problem in enumerate(asked.problems):
        prompt = task.encode(replace(problem, prompt=f"{problem.answer} = {problem.raw}")) + begun[row]
        tokens = asked.rollouts.tokens[row][asked.rollouts.mask[row]].tolist()
        ids = torch.tensor([prompt + tokens])
        with torch.no_grad():
            hidden = teacher.trunk(ids, torch.ones_like(ids)).last_hidden_state[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(found[row], HiddenTarget(hidden, teacher.head).log_probs(1.0), atol=2e-5, rtol=0)
    part = replace(asked, begun=begun).select([1, 2])
    assert [part.beginning(row) for row in range(2)] == begun[1:3]
    assert asked.beginning(0) == ()


def alone_tokens(asked):
    return int(asked.rollouts.mask.sum() + asked.rollouts.prompt_mask.sum())


def test_a_solution_is_shown_where_there_is_one(world):
    student, _, task, asked = world
    voice = Voice("t", student, context="{solution} = {prompt}")
    teacher = Teacher([voice], task)
    bare = rows(alone(student, asked).rows)
    unprivileged = rows(teacher.score(asked, micro_tokens=10_000).scores.rows)
    torch.testing.assert_close(unprivileged, bare)  # current weights, bare prompt: the student itself
    shown = replace(asked, solutions=["11", *[None] * 5])
    found = rows(teacher.score(shown, micro_tokens=10_000).scores.rows)
    first = int(asked.rollouts.lengths[0])
    assert float((found[:first] - bare[:first]).abs().max()) > 1e-3
    torch.testing.assert_close(found[first:], bare[first:], atol=2e-5, rtol=0)


def test_a_moving_average_moves_by_its_decay_and_is_restored(world, tiny_world):
    student, _, task, _ = world
    copy = load_model(ModelSpec(model=str(tiny_world.student)), device="cpu", trainable=False, role="student")
    teacher = Teacher([Voice("t", copy, decay=0.75)], task)
    before = {name: value.clone() for name, value in copy.model.state_dict().items()}
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1.0)
    teacher.follow(student)  # nothing of it is trained
    assert all(torch.equal(value, before[name]) for name, value in copy.model.state_dict().items())
    student.model.requires_grad_(True)
    teacher.follow(student)
    for name, value in copy.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, before[name] + 0.25 * (student.model.state_dict()[name] - before[name]))
    kept = {name: value.clone() for name, value in teacher.weights().items()}
    assert kept
    teacher.follow(student)
    teacher.restore(kept)
    assert all(torch.equal(value, kept[name]) for name, value in teacher.weights().items())


def test_the_spec_says_who_teaches(tiny_spec, tiny_world):
    student = load_model(ModelSpec(model=str(tiny_world.student)), device="cpu", trainable=True, role="student")
    task = {**tiny_spec().task.model_dump(exclude_unset=True), "demonstration_column": "answer"}
    spec = tiny_spec(
        task=task,
        teacher={
            "mixture": [
                {"model": str(tiny_world.teacher), "weight": 2.0},
                {"self": {"weights": "ema", "decay": 0.9}},
                {"self": {"weights": "current"}, "context": "{demonstration} {prompt}"},
            ]
        },
    )
    voices, warnings = load_voices(spec, student, device="cpu", frozen_dtype=torch.bfloat16)
    assert warnings == []
    other, average, itself = voices
    assert (other.weight, other.lm.model.dtype) == (2.0, torch.bfloat16)
    assert (average.decay, average.lm.model.dtype) == (0.9, torch.float32)
    assert average.lm is not student
    assert itself.lm is student
    assert not any(parameter.requires_grad for parameter in average.lm.model.parameters())
    assert [voice.path for voice in voices] == [f"teacher.mixture.{i}" for i in range(3)]
