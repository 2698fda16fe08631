from types import SimpleNamespace

import pytest
import torch

from opd_core.diagnostics.landing import landing

# Token 0 was written and the teacher dislikes it. 1 is supported and reachable; 2 is the student's favourite that the
# teacher likes less; 3 has the teacher's support but the student cannot reach it.
STUDENT = torch.tensor([[0.4, 0.2, 0.35, 0.01, 0.04]], dtype=torch.float64)
TEACHER = torch.tensor([[0.1, 0.5, 0.1, 0.28, 0.02]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def three_favourites(monkeypatch):
    monkeypatch.setattr("opd_core.diagnostics.landing._FAVOURITES", 3)


def probe(realised, push=None):
    before = STUDENT
    push = torch.zeros_like(before) if push is None else push
    direction = before * (push - (before * push).sum(-1, keepdim=True))
    return SimpleNamespace(
        tokens=torch.tensor([0]),
        before=before,
        push=push,
        direction=direction,
        realised=torch.tensor([realised]).double(),
    )


def test_gains_are_told_apart_by_who_supports_them():
    found = landing(probe([-0.10, 0.05, 0.03, 0.02, 0.0]), TEACHER.log())
    assert found["landing_realised_supported"] == pytest.approx(0.5)
    assert found["landing_realised_own"] == pytest.approx(0.3)


def test_plain_softmax_sends_it_to_whom_the_student_likes():
    found = landing(probe([-0.10, 0.05, 0.03, 0.02, 0.0]), TEACHER.log())
    assert found["landing_plain_supported"] == pytest.approx(0.2 / 0.6)
    assert found["landing_plain_own"] == pytest.approx(0.35 / 0.6)


def test_a_route_is_predicted_to_land_where_it_was_sent():
    sent = torch.tensor([[-1.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = landing(probe([-0.10, 0.1, 0.0, 0.0, 0.0], sent), TEACHER.log())
    assert found["landing_predicted_supported"] > 0.7
    assert found["landing_realised_supported"] == 1.0


def test_squeeze_is_the_correlation_with_what_was_liked_before():
    found = landing(probe([-0.6, 0.2, 0.35, 0.01, 0.04]), TEACHER.log())
    assert found["squeeze"] == pytest.approx(1.0)
    assert landing(probe([0.0, -0.2, -0.35, -0.01, -0.04]), TEACHER.log())["squeeze"] == pytest.approx(-1.0)


def test_the_teachers_favourite_gains_when_it_was_not_written():
    found = landing(probe([-0.2, 0.2, 0.0, 0.0, 0.0]), TEACHER.log())
    assert found["favourite_gain"] == pytest.approx(torch.tensor(2.0).log().item())


def test_the_exact_reverse_kl_force_has_cosine_one():
    r = TEACHER.log() - STUDENT.log()
    exact = STUDENT * (r - (STUDENT * r).sum())
    assert landing(probe([0.0] * 5, 3 * exact), TEACHER.log())["force_cosine"] == pytest.approx(1.0)
    assert landing(probe([0.0] * 5, -exact), TEACHER.log())["force_cosine"] == pytest.approx(-1.0)


def test_where_nothing_is_suppressed_nothing_lands():
    liked = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1]], dtype=torch.float64)
    assert not any(name.startswith("landing") for name in landing(probe([0.1, 0.0, 0.0, 0.0, 0.0]), liked.log()))
