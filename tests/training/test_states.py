"""Who writes: shares, beginnings, mixtures, data, and rows of earlier steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_core.models import load_model
from opd_core.rollout import completion_hidden
from opd_core.spec import ModelSpec, RolloutSpec, TaskSpec
from opd_core.tasks import load_task
from opd_core.teachers import Teacher, Voice
from opd_core.training.replay import Replay, beside
from opd_core.training.states import DATA, STUDENT, TEACHER, Writer, sorted_by_length


@pytest.fixture
def world(tiny_world, tiny_spec):
    student, teacher = (
        load_model(ModelSpec(model=str(path)), device="cpu", trainable=False, role="teacher")
        for path in (tiny_world.student, tiny_world.teacher)
    )
    task = load_task(
        TaskSpec(
            dataset=str(tiny_world.problems),
            prompt_column="question",
            answer_column="answer",
            demonstration_column="question",  # long enough to be cut
            eval_examples=4,
        ),
        student.tokenizer,
        seed=0,
    )
    return student, teacher, task


def writer(world, **rollout):
    student, teacher, task = world
    spec = RolloutSpec.model_validate({"samples_per_prompt": 2, "max_new_tokens": 8, **rollout})
    return Writer(spec, 3, student, Teacher([Voice("teacher", teacher)], task), task)


def fresh(world, count=12, step=4, progress=0.0, **rollout):
    return writer(world, **rollout).fresh(world[2].train[:count], step=step, progress=progress)


def lists(rollouts):
    return [tokens[mask].tolist() for tokens, mask in zip(rollouts.tokens, rollouts.mask, strict=True)]


def log_probs(lm, rollouts):
    """[N] of the written tokens under a model."""
    with torch.no_grad():
        logp = lm.head(completion_hidden(lm.trunk, rollouts)).log_softmax(-1)
    return logp.gather(1, rollouts.tokens[rollouts.mask][:, None])[:, 0]


def test_rows_come_from_their_writers_in_the_wanted_shares(world):
    student, teacher, task = world
    shares = {"student": 0.5, "teacher": 0.3, "data": 0.2}
    written = fresh(world, count=60, written_by=shares)
    counted = [float((written.origin == who).float().mean()) for who in (STUDENT, TEACHER, DATA)]
    assert counted == pytest.approx([0.5, 0.3, 0.2], abs=0.13)  # 120 draws: 3 standard deviations
    packed = written.origin.repeat_interleave(written.rollouts.lengths)
    recorded = written.rollouts.behaviour_logp[written.rollouts.mask]
    for who, lm in ((STUDENT, student), (TEACHER, teacher)):
        own = log_probs(lm, written.rollouts)[packed == who]
        torch.testing.assert_close(recorded[packed == who], own, atol=2e-5, rtol=0)
    for row in (written.origin == DATA).nonzero()[:, 0].tolist():
        assert lists(written.rollouts)[row] == task.imitate(written.problems[row].demonstration)[:8]
        assert bool(written.rollouts.truncated[row]) == (len(task.imitate(written.problems[row].demonstration)) > 8)


def test_what_a_row_is_depends_on_the_step_and_nothing_else(world):
    shares = {"student": 0.4, "teacher": 0.3, "data": 0.3}
    whole = fresh(world, count=10, written_by=shares)
    again = fresh(world, count=10, written_by=shares)
    assert lists(whole.rollouts) == lists(again.rollouts)
    alone = writer(world, written_by=shares).fresh(world[2].train[7:8], step=4, progress=0.0)
    assert lists(alone.rollouts) == lists(whole.rollouts)[14:16]
    assert lists(fresh(world, count=10, step=5, written_by=shares).rollouts) != lists(whole.rollouts)


def test_the_students_own_rows_are_the_same_whoever_else_writes(world):
    plain = lists(fresh(world).rollouts)
    shared = fresh(world, written_by={"student": 0.5, "teacher": 0.5, "data": 0.0})
    own = (shared.origin == STUDENT).nonzero()[:, 0].tolist()
    assert 0 < len(own) < len(plain)
    assert [lists(shared.rollouts)[row] for row in own] == [plain[row] for row in own]


def test_mixed_sampling_records_the_mixtures_probability(world):
    student, teacher, _ = world
    rollouts = fresh(world, teacher_mix=0.2).rollouts
    own, other = (log_probs(lm, rollouts).exp() for lm in (student, teacher))
    recorded = rollouts.behaviour_logp[rollouts.mask].exp()
    torch.testing.assert_close(recorded, 0.8 * own + 0.2 * other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("of", ["data", "teacher"])
def test_the_student_goes_on_from_a_beginning_that_shrinks(world, of):
    _, _, task = world
    prefix = {"of": of, "share": 0.5, "until": 0.5}
    lengths = [
        sum(map(len, fresh(world, progress=progress, prefix=prefix).begun)) for progress in (0.0, 0.25, 0.5, 0.9)
    ]
    assert lengths[0] > lengths[1] > lengths[2] == lengths[3] == 0
    written = fresh(world, prefix=prefix)
    for row, (problem, begun) in enumerate(zip(written.problems, written.begun, strict=True)):
        prompt = written.rollouts.prompts[row][written.rollouts.prompt_mask[row]].tolist()
        assert prompt == task.encode(problem) + begun
        if of == "data":
            whole = task.imitate(problem.demonstration)[:8]
            assert begun == whole[: min(len(whole) // 2, len(whole) - 1)]
    # What a teacher wrote has to be paid for, the part that was cut off included.
    given = sum(map(len, written.begun))
    assert written.teacher_begun > given if of == "teacher" else written.teacher_begun == 0
    assert written.reorder(torch.arange(2)).teacher_begun == written.teacher_begun
    own = log_probs(world[0], written.rollouts)
    torch.testing.assert_close(written.rollouts.behaviour_logp[written.rollouts.mask], own, atol=2e-5, rtol=0)


def test_what_a_teacher_writes_in_its_own_context_stands_in_the_students(world):
    student, teacher, task = world
    voice = Voice("teacher", teacher, context="{answer} = {prompt}")
    shares = {"student": 0.0, "teacher": 1.0, "data": 0.0}
    spec = RolloutSpec.model_validate({"samples_per_prompt": 2, "max_new_tokens": 8, "written_by": shares})
    written = Writer(spec, 3, student, Teacher([voice], task), task).fresh(task.train[:6], step=4, progress=0.0)
    rows = written.rollouts
    for problem, prompt, mask in zip(written.problems, rows.prompts, rows.prompt_mask, strict=True):
        assert prompt[mask].tolist() == task.encode(problem)
        assert voice.encode(task, problem) != task.encode(problem)
    heard = rows.after([voice.encode(task, problem) for problem in written.problems], student.pad_id)
    torch.testing.assert_close(rows.behaviour_logp[rows.mask], log_probs(teacher, heard), atol=2e-5, rtol=0)


def replay(world, **settings):
    student, _, task = world
    spec = RolloutSpec.model_validate({"replay": {"share": 0.5, "max_age": 2, **settings}}).replay
    return Replay(spec, task.train, student.pad_id)


def test_old_rows_come_back_as_they_were_written_until_they_are_too_old(world):
    buffer = replay(world)
    assert buffer.wanted(4) == 0
    assert buffer.draw(0, seed=0, step=1) is None
    by_problem = {}
    for step in (1, 2, 3):
        written = fresh(world, count=3 + step, step=step)
        if step > 1:
            assert buffer.wanted(4) == 2
            old = buffer.draw(2, seed=0, step=step)
            assert set(old.age.tolist()) <= {1, 2}
            assert old.group.tolist() == [0, 0, 1, 1]
            for row, problem in enumerate(old.problems):
                kept = by_problem[(problem.id, step - int(old.age[row]))]
                assert lists(old.rollouts)[row] in kept
            both = sorted_by_length(beside(written, old, world[0].pad_id))
            assert len(both.rollouts) == len(both.problems) == len(written.rollouts) + 4
            assert len(both.group.unique()) == len(written.group.unique()) + 2
        for row, problem in enumerate(written.problems):
            by_problem.setdefault((problem.id, step), []).append(lists(written.rollouts)[row])
        buffer.keep(written, step=step)
    assert buffer.dropped == 4  # the prompts of step 1 are older than 2 at step 4


def test_rows_that_others_wrote_are_not_kept(world):
    buffer = replay(world)
    written = fresh(world, count=5)
    written = replace(written, origin=torch.where(written.group < 2, TEACHER, STUDENT))
    buffer.keep(written, step=1)
    assert buffer.wanted(100) == 3


def test_a_restored_buffer_draws_the_same_rows(world):
    buffer, other = replay(world, max_age=5), replay(world, max_age=5)
    prefix = {"of": "data", "share": 0.5, "until": 1.0}
    for step in (1, 2):
        buffer.keep(fresh(world, count=4, step=step, prefix=prefix if step == 1 else None), step=step)
    other.restore(buffer.state(), torch.device("cpu"))
    one, two = (each.draw(5, seed=1, step=3) for each in (buffer, other))
    assert lists(one.rollouts) == lists(two.rollouts)
    assert one.begun == two.begun
    assert any(one.begun)
    assert one.age.tolist() == two.age.tolist()
    torch.testing.assert_close(
        one.rollouts.behaviour_logp[one.rollouts.mask], two.rollouts.behaviour_logp[two.rollouts.mask]
    )
    assert replay(world).state() == {}
