"""An environment answers in the middle of a rollout: what it says is read, and is nobody's action."""

from __future__ import annotations

import pytest
import torch

from opd_core.rollout import Companion, FixedEngine, completion_hidden, imitated, join, uniform_noise, visit, write
from opd_core.tasks.environment import Environment, Transcript

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14]] * 3
REPLY = [20, 21, 22]
ACTIONS = 12


def environment(turns=2, answer=lambda _: REPLY, asks=range(5, 30)):
    return Environment(frozenset(asks), answer, turns, longest=len(REPLY))


def written(student, asked, prompts=PROMPTS, rows=None, **settings):
    rows = list(range(len(prompts))) if rows is None else rows
    room = asked.room(ACTIONS)
    noise = uniform_noise(0, 1, [(i, 0) for i in rows], room)
    return write(
        student, [prompts[i] for i in rows], max_new_tokens=ACTIONS, noise=noise, environment=asked, **settings
    )


def stretches(rollouts, row):
    """Runs of tokens of one row, and whether they are the student's."""
    runs = []
    for token, own in zip(rollouts.completions()[row], rollouts.acted()[row], strict=True):
        if not runs or runs[-1][1] != own:
            runs.append(([], own))
        runs[-1][0].append(token)
    return runs


def test_a_call_is_answered_and_the_student_goes_on(student):
    asked = environment()
    rollouts = written(student, asked)
    answered = 0
    for row in range(len(PROMPTS)):
        runs = stretches(rollouts, row)
        assert [own for _, own in runs] == [place % 2 == 0 for place in range(len(runs))]
        assert runs[-1][1]  # the last word is the student's
        for (mine, _), (theirs, _) in zip(runs[::2], runs[1::2], strict=False):
            assert theirs == REPLY
            assert mine[-1] in asked.asks
            assert not asked.asks & set(mine[:-1])
        answered += len(runs) // 2
        if runs[-1][0][-1] in asked.asks and len(runs) // 2 < asked.turns:
            assert sum(len(run) for run, own in runs if own) == ACTIONS  # nothing is left to go on with
    assert answered > len(PROMPTS)
    assert int(rollouts.lengths.max()) <= ACTIONS
    assert not bool((rollouts.mask & ~rollouts.present).any())
    assert torch.equal(rollouts.behaviour_logp[~rollouts.mask], torch.zeros(int((~rollouts.mask).sum())))


def test_a_call_that_nobody_answers_any_more_ends_the_rollout_as_cut(student):
    rollouts = written(student, environment(turns=1))
    lasts = [stretches(rollouts, row)[-1][0][-1] for row in range(len(PROMPTS))]
    ended = [last in student.eos_ids for last in lasts]
    assert rollouts.truncated.tolist() == [not one for one in ended]
    assert any(last in environment().asks for last in lasts)
    assert all(len(stretches(rollouts, row)) <= 3 for row in range(len(PROMPTS)))


def test_the_recorded_probabilities_are_the_students_behind_what_it_heard(student):
    rollouts = written(student, environment())
    logp = student.head(completion_hidden(student.trunk, rollouts)).log_softmax(-1)
    own = logp.gather(1, rollouts.tokens[rollouts.mask][:, None])[:, 0]
    torch.testing.assert_close(rollouts.behaviour_logp[rollouts.mask], own, atol=2e-5, rtol=0)


def test_a_rollout_does_not_depend_on_the_others_nor_on_the_cache(student):
    asked = environment()
    together = written(student, asked)
    for rows in ([0, 3], [7]):
        alone = written(student, asked, rows=rows)
        assert alone.completions() == [together.completions()[row] for row in rows]
    fixed = written(student, asked, engine=FixedEngine(student, torch.float32))
    assert fixed.completions() == together.completions()
    assert fixed.acted() == together.acted()
    mixed = written(student, asked, companion=Companion(student, 0.5))  # half of itself is itself
    assert mixed.completions() == together.completions()


def test_it_is_asked_about_the_stretch_alone_and_about_what_was_begun(student):
    heard = []
    asked = environment(turns=3, answer=lambda stretch: heard.append(list(stretch)) or REPLY)
    rollouts = written(student, asked, rows=[0], begun=[[7, 8]])
    runs = [run for run, own in stretches(rollouts, 0) if own]
    assert heard[0] == [7, 8, *runs[0]]
    assert heard[1:] == runs[1 : len(heard)]
    nothing = written(student, environment(answer=lambda _: None))
    assert nothing.completions() == written(student, environment(asks=[])).completions()


def test_an_answer_longer_than_announced_is_a_defect(student):
    with pytest.raises(ValueError, match="an answer of 4 tokens, and at most 3 were announced"):
        written(student, environment(answer=lambda _: [1] * 4))


def test_a_turn_of_a_chat_may_end_with_what_ends_the_sequence_otherwise(student):
    """Asked is the end of sequence: where there was a call the episode goes on."""
    asked = environment(turns=1, asks=student.eos_ids)
    rollouts = written(student, asked)
    heard = [row for row in range(len(PROMPTS)) if len(stretches(rollouts, row)) > 1]
    assert heard
    for row in heard:
        (turn, _), (said, _), (after, _) = stretches(rollouts, row)
        assert turn[-1] in student.eos_ids
        assert said == REPLY
        assert bool(rollouts.truncated[row]) == (after[-1] not in student.eos_ids)
    assert rollouts.truncated.tolist() == [ids[-1] not in student.eos_ids for ids in rollouts.completions()]


def test_rows_keep_their_holes_whatever_is_done_with_them(student):
    rollouts = written(student, environment())
    width = rollouts.spans
    assert width.tolist() == [len(PROMPTS[row]) + len(ids) for row, ids in enumerate(rollouts.completions())]
    parts = join([rollouts.select(slice(0, 4)), rollouts.select(slice(4, len(PROMPTS)))], student.pad_id)
    assert (parts.completions(), parts.acted()) == (rollouts.completions(), rollouts.acted())
    again = imitated(PROMPTS, rollouts.completions(), student, rollouts.acted())
    assert torch.equal(again.mask, rollouts.mask)
    assert torch.equal(again.truncated, rollouts.truncated)
    torch.testing.assert_close(visit(student.trunk, again).ends, visit(student.trunk, rollouts).ends)
    action = int(rollouts.lengths[0]) - 1
    begun = rollouts.beginnings([action] * 1 + [0] * (len(PROMPTS) - 1))
    assert begun[0].own.count(True) == action
    assert rollouts.completions()[0][len(begun[0].ids)] == rollouts.tokens[0][rollouts.mask[0]][action]
    assert begun[1] == Transcript([], [])
