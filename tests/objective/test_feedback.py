from __future__ import annotations

import pytest
import torch

from opd_core.objective import feedback as module
from opd_core.objective.feedback import Feedback
from opd_core.objective.targets import DenseTarget, HiddenTarget, chunks


def test_fields_equal_their_definitions(batch):
    student, teacher, tokens, mask = batch
    found = Feedback.from_logits(*batch)
    s, t = student.log_softmax(-1), teacher.log_softmax(-1)
    at = lambda x: x.gather(-1, tokens[..., None])[..., 0] * mask  # noqa: E731
    torch.testing.assert_close(found.student_logp, at(s))
    torch.testing.assert_close(found.teacher_logp, at(t))
    torch.testing.assert_close(found.log_ratio, at(t - s))
    torch.testing.assert_close(found.kl, (s.exp() * (s - t)).sum(-1) * mask)
    torch.testing.assert_close(found.student_entropy, -(s.exp() * s).sum(-1) * mask)


def test_the_expected_log_ratio_is_minus_the_kl(batch):
    student, teacher, _, mask = batch
    s, t = student.log_softmax(-1), teacher.log_softmax(-1)
    torch.testing.assert_close((s.exp() * (t - s)).sum(-1)[mask], -Feedback.from_logits(*batch).kl[mask])


def test_chunk_sizes_change_nothing(batch, monkeypatch):
    whole = Feedback.from_logits(*batch)
    monkeypatch.setattr(module, "chunks", lambda rows, v, **_: chunks(rows, v, budget=3 * v - 1))
    pieces = Feedback.from_logits(*batch)
    for name in ("log_ratio", "kl", "student_entropy", "teacher_entropy"):
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name), rtol=0, atol=1e-15)


def test_more_favourites_than_were_kept_are_looked_up_again(batch):
    student, teacher, tokens, mask = batch
    found = Feedback.from_rows(DenseTarget(student[mask]), DenseTarget(teacher[mask]), tokens, mask, top_k=2)
    for k in (1, 2, 5, 3, 99):
        both = found.candidates(k)
        assert torch.equal(both.student.ids, student[mask].topk(min(k, 7)).indices)
        assert torch.equal(both.teacher.ids, teacher[mask].topk(min(k, 7)).indices)
        torch.testing.assert_close(both.student.teacher_logp, teacher[mask].log_softmax(-1).gather(1, both.student.ids))


def test_hidden_rows_equal_dense_rows(generator):
    head = torch.nn.Linear(4, 7, bias=False, dtype=torch.float64)
    hidden = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    dense = DenseTarget(head(hidden))
    torch.testing.assert_close(HiddenTarget(hidden, head).log_probs(0.8), dense.log_probs(0.8))
    torch.testing.assert_close(HiddenTarget(hidden, head)[2:4].log_probs(1.0), dense[2:4].log_probs(1.0))
    assert not dense.log_probs(1.0).requires_grad


def test_row_counts_must_agree(batch):
    student, teacher, tokens, mask = batch
    with pytest.raises(ValueError, match="9 action tokens, but 9 student and 8 teacher rows"):
        Feedback.from_rows(DenseTarget(student[mask]), DenseTarget(teacher[mask][1:]), tokens, mask)


def test_chunks_cover_every_row_once():
    for rows in (0, 1, 5, 7):
        covered = [row for part in chunks(rows, 3, budget=6) for row in range(part.start, part.stop)]
        assert covered == list(range(rows))
