"""A prompt that several rollouts share is read once, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from opd_core.rollout import by_length, uniform_noise, visit, visit_sharing, write
from opd_core.teachers.local import score_with_ends

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [9], [10, 11, 12], [9, 10]]
SAMPLES = 4


@pytest.fixture(scope="module")
def rollouts(student):
    """Ragged completions of ragged prompts, the samples of one prompt far apart."""
    prompts = PROMPTS * SAMPLES
    noise = uniform_noise(0, 1, [(row, 0) for row in range(len(prompts))], 12)
    written = write(student, prompts, max_new_tokens=12, noise=noise)
    assert len(set(written.lengths.tolist())) >= 3
    return written.reorder(by_length(written))


@pytest.fixture
def read(student, monkeypatch):
    """Tokens in each forward of the trunk, padding included."""
    seen: list[int] = []
    forward = student.trunk.forward

    def counted(input_ids, *rest, **named):
        seen.append(input_ids.numel())
        return forward(input_ids, *rest, **named)

    monkeypatch.setattr(student.trunk, "forward", counted)
    return seen


def test_states_are_those_of_reading_every_row_for_itself(student, rollouts, read):
    shared = visit_sharing(student.trunk, rollouts, worth=1)
    assert read == [len(PROMPTS) * rollouts.prompts.shape[1], rollouts.tokens.numel()]
    plain = visit(student.trunk, rollouts)
    torch.testing.assert_close(shared.rows, plain.rows, atol=2e-5, rtol=0)
    torch.testing.assert_close(shared.ends, plain.ends, atol=2e-5, rtol=0)


def test_where_little_is_shared_the_rows_are_read_as_ever(student, rollouts, read):
    alone = rollouts.select(slice(0, 1))
    for some in (alone, rollouts):
        found, plain = visit_sharing(student.trunk, some), visit(student.trunk, some)
        assert torch.equal(found.rows, plain.rows)
        assert torch.equal(found.ends, plain.ends)
    assert len(read) == 4


def test_a_teacher_reads_the_prompt_of_many_samples_once(student, tiny_world, read):
    prompts = [[5, 6, 7, 8] * 8] * 40
    noise = uniform_noise(0, 1, [(0, row) for row in range(len(prompts))], 6)
    written = write(student, prompts, max_new_tokens=6, noise=noise)
    read.clear()
    scores = score_with_ends(student, written, micro_tokens=16_384)
    assert read == [32, written.tokens.numel()]
    plain = visit(student.trunk, written)
    torch.testing.assert_close(scores.rows.hidden, plain.rows, atol=2e-5, rtol=0)
    torch.testing.assert_close(scores.ends.hidden, plain.ends, atol=2e-5, rtol=0)
