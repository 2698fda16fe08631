"""A server that scores given candidates: found out at the start, asked for what the student proposes, exact there."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch

from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.proposals import propose
from opd_core.objective.targets import DenseTarget
from opd_core.recipes import adapt
from opd_core.servers import Unsuitable
from opd_core.spec import UserError
from opd_core.teachers import Teacher, Voice
from opd_core.teachers.sglang import SGLang
from opd_core.teachers.vllm import VLLM
from tests.teachers.fake_server import FakeServer
from tests.teachers.served import gradients, remote

SPOKEN = ("vllm", "sglang")
TAIL = adapt("topk-tail", {"support": {"k": 12}})


def fake_of(world, **settings):
    return FakeServer(world[1], **{"candidates": True, **settings})


@pytest.mark.parametrize("speaks", SPOKEN)
@pytest.mark.parametrize(
    ("recipe", "support"),
    [
        ("topk-tail", {"k": 12}),
        ("student-topk", {"k": 16}),
        ("union-topk", {"k": 5}),
        ("topk-tail", {"k": 12, "special_tokens": "exclude"}),
    ],
)
def test_it_gives_the_gradients_of_the_same_model_in_the_process(world, speaks, recipe, support):
    method = adapt(recipe, {"support": support})
    away = remote(world, fake_of(world, speaks=speaks, max_logprobs=5), method=method, top_k=5)
    theirs, far = gradients(world, away, method)
    ours, near = gradients(world, Teacher([Voice("teacher", world[1])], world[2]), method)
    found, exact = (update.feedback.candidates(support["k"]).student for update in (far, near))
    assert torch.equal(found.ids, exact.ids)
    torch.testing.assert_close(found.teacher_logp, exact.teacher_logp, atol=1e-4, rtol=0)
    torch.testing.assert_close(far.feedback.log_ratio, near.feedback.log_ratio, atol=1e-4, rtol=0)
    assert float(ours.norm()) > 0
    torch.testing.assert_close(theirs, ours, atol=1e-4 * float(ours.norm()), rtol=0)
    # Without the proposals it would not be: a server's own favourites are not what the method compares.
    blind = remote(world, top_k=5)
    rough = blind.score(world[3], micro_tokens=1).scores.rows[slice(None)].log_probs(1.0).gather(1, exact.ids)
    assert float((rough - exact.teacher_logp).abs().max()) > 0.1


def test_the_update_is_the_same_however_the_batch_is_cut(world):
    teacher = remote(world, fake_of(world), method=TAIL)
    whole, one = gradients(world, teacher, TAIL)
    pieces, many = gradients(world, teacher, TAIL, micro_tokens=30)
    assert one.extra_forward
    assert many.extra_forward
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=1e-4)


def test_the_student_proposes_what_its_feedback_will_look_at():
    student, teacher = torch.randn(2, 6, 9, 40, generator=torch.Generator().manual_seed(0)).unbind(0)
    student = student.round()  # many equals
    special = tuple(range(30, 40))
    mask = torch.ones(6, 9, dtype=torch.bool)
    feedback = Feedback.from_logits(
        student, teacher, torch.zeros(6, 9).long(), mask, context=FeedbackContext(special_ids=special)
    )
    asked = [
        ({"gates": [{"kind": "ta_opd", "k": 4}]}, 4, True),
        ({"support": {"kind": "union", "k": 6}}, 6, False),
        ({"support": {"kind": "student_top_k", "k": 6, "special_tokens": "exclude"}}, 6, True),
    ]
    for changes, k, without in asked:
        method = adapt("reverse-kl", changes)
        proposed = propose(method, DenseTarget(student[mask]), special)
        wanted = feedback.candidates(k, without_special=without).student.ids
        assert bool((wanted[:, :, None] == proposed[:, None, :]).any(2).all())
    assert bool((torch.tensor(special)[None, :, None] == proposed[:, None, :]).any(2).all())  # mass that is left out
    assert propose(adapt("cr-opd", {}), DenseTarget(student[mask]), special).shape == (54, 0)


def test_only_what_the_server_did_not_say_by_itself_is_asked_in_requests_of_the_registered_size(world):
    fake = fake_of(world, max_logprobs=5)
    teacher = remote(world, fake, method=TAIL, top_k=5)
    _, update = gradients(world, teacher, TAIL)
    lengths = update.rollouts.lengths.tolist()
    requests = [body for body in fake.asked if "token_ids" in body]
    assert len(requests) > len(lengths)  # 12 candidates, 5 to a request
    assert all(len(row) <= 5 for body in requests for row in body["sampling_params"]["prompt_logprob_token_ids"])
    for length in lengths:
        (body, *_) = [one for one in requests if len(one["sampling_params"]["prompt_logprob_token_ids"]) == length]
        listed = [one for one in fake.asked if one.get("prompt") == body["token_ids"] and "logprobs" in one]
        logp = fake._logp(body["token_ids"])[body["sampling_params"]["prompt_logprob_start"] : -1]
        own = logp.topk(5).indices.tolist()
        assert listed
        for row, favourites in zip(body["sampling_params"]["prompt_logprob_token_ids"], own, strict=True):
            assert not {i for i in row if i >= 0} & set(favourites)


@pytest.mark.parametrize("speaks", SPOKEN)
def test_what_the_server_reads_is_counted_request_by_request(world, speaks):
    fake = fake_of(world, speaks=speaks)
    teacher = remote(world, fake, method=TAIL, top_k=5)
    asked = replace(world[3], proposed=torch.arange(20).expand(int(world[3].rollouts.mask.sum()), 20))
    scored = teacher.score(asked, micro_tokens=1)
    recognised = 1 if speaks == "vllm" else 2
    read = sum(
        len(body.get("prompt") or body.get("token_ids") or body["input_ids"]) for body in fake.asked[recognised:]
    )
    assert scored.tokens == read == scored.of_each[0]
    assert read >= 2 * int(asked.rollouts.mask.sum() + asked.rollouts.prompt_mask.sum())


def test_tokens_of_one_request_share_their_candidates_within_bounds(world, monkeypatch):
    monkeypatch.setattr("opd_core.teachers.sglang._LARGEST_UNION", 8)
    fake = fake_of(world, speaks="sglang")
    dialect, ids = SGLang(fake.server()), list(range(2, 22))
    candidates = [[at, at + 1, (7 * at) % 23] if at != 6 else [] for at in range(15)]
    candidates[9] = list(range(10))  # more than a request's share by itself
    candidates = [list(dict.fromkeys(row)) for row in candidates]
    given = dialect.score(ids, 5, candidates)
    logp = fake._logp(ids)
    for at, (row, known) in enumerate(zip(candidates, given.tokens, strict=True)):
        assert list(known) == row
        assert list(known.values()) == pytest.approx([float(logp[4 + at, i]) for i in row], abs=1e-5)
    assert len(fake.asked) > 3
    assert sorted(len(body["token_ids_logprob"]) > 8 for body in fake.asked)[-2:] == [False, True]
    assert given.read == sum(len(body["input_ids"]) for body in fake.asked)
    assert dialect.score(ids, 5, [[]] * 15).read == 0


@pytest.mark.parametrize("speaks", SPOKEN)
def test_at_its_start_a_job_is_told_what_is_possible(world, speaks):
    able, unable = (
        remote(world, fake_of(world, speaks=speaks, candidates=candidates)).check(adapt("tml-opd", {}))
        for candidates in (True, False)
    )
    assert able.as_data()["candidates"] is True
    assert able.supports["student_top_k"] == "any k"
    assert "and of candidates that it is given" in able.sentence
    assert unable.as_data()["candidates"] is False
    assert set(unable.supports) == {"sampled", "teacher_top_k", "intersection", "adaptive"}
    assert "top 8 and of nothing else" in unable.sentence
    assert {"vllm": "--enable-scale-out", "sglang": "token_ids_logprob"}[speaks] in unable.sentence
    assert able.dialect == {"vllm": "vLLM", "sglang": "SGLang"}[speaks]


@pytest.mark.parametrize("speaks", SPOKEN)
@pytest.mark.parametrize("offset", [1, -1])
def test_candidates_that_stand_a_position_off_are_caught_at_the_start(world, speaks, offset):
    fake = fake_of(world, speaks=speaks, candidate_shift=offset)
    with pytest.raises(UserError, match="a position off") as raised:
        remote(world, fake, method=TAIL).check(TAIL)
    assert raised.value.param == "method.support"
    remote(world, fake_of(world, speaks=speaks), method=TAIL).check(TAIL)


@pytest.mark.parametrize("speaks", SPOKEN)
def test_without_given_candidates_the_method_is_refused_and_told_what_would_allow_it(world, speaks):
    with pytest.raises(UserError, match="student's top 12") as raised:
        remote(world, fake_of(world, speaks=speaks, candidates=False), method=TAIL).check(TAIL)
    assert "a server that scores given candidates" in raised.value.message
    assert {"vllm": "--enable-scale-out", "sglang": "token_ids_logprob"}[speaks] in raised.value.message
    assert raised.value.code == "unsuitable_endpoint"


@pytest.mark.parametrize("speaks", SPOKEN)
@pytest.mark.parametrize("short", [(1, 0), (0, 1)])
def test_fewer_candidates_than_asked_are_an_error(world, speaks, short):
    fake = fake_of(world, speaks=speaks, short=short)
    dialect = {"vllm": VLLM, "sglang": SGLang}[speaks](fake.server())
    with pytest.raises(Unsuitable, match="was asked for"):
        dialect.score([5, 6, 7, 8], 1, [[1, 2], [3, 4], [5, 6]])
    asked = replace(world[3], proposed=torch.arange(30).expand(int(world[3].rollouts.mask.sum()), 30))
    with pytest.raises(UserError, match="was asked for"):
        remote(world, fake, method=TAIL).score(asked, micro_tokens=1)


def npy(values):
    """As vLLM sends it; None = an array of objects."""
    file = io.BytesIO()
    np.save(file, np.array(values, dtype=object) if values is None else np.array(values, np.float32))
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, "without prompt_token_id_logprobs"),  # a prefix that was cached, or a field that is not known
        ("not base64!", "no base64-encoded .npy"),
        (npy([[-1.0, -2.0]])[:-40], "no base64-encoded .npy"),
        (npy(None), "no base64-encoded .npy"),  # would have to be unpickled
        (npy([[3.0, -2.0]]), "logits"),
        (npy([[float("nan"), -2.0]]), "no log-probabilities"),
    ],
)
def test_broken_scores_of_candidates_are_refused(world, told, said):
    answer = httpx.Response(200, json={"choices": [], "prompt_token_id_logprobs": told})
    with pytest.raises(Unsuitable, match=said):
        VLLM(FakeServer(world[1], fail=lambda: answer).server()).score([5, 6], 1, [[1, 2]])


def test_sglang_must_speak_of_the_tokens_that_it_was_sent(world):
    entries = [[None, 5, None], [-1.0, 9, None]]
    meta = {"input_token_logprobs": entries, "input_top_logprobs": [None, [[-1.0, 9, None]]]}
    answer = httpx.Response(200, json={"meta_info": meta})
    with pytest.raises(Unsuitable, match="not those of the tokens"):
        SGLang(FakeServer(world[1], fail=lambda: answer).server()).read([5, 6], 1)
    null = httpx.Response(200, json={"meta_info": {"input_token_ids_logprobs": [None, [[None, 7, None]]]}})
    with pytest.raises(Unsuitable, match="no number for token id 7"):
        SGLang(FakeServer(world[1], fail=lambda: null).server()).score([5, 6], 1, [[7]])


def test_a_selection_of_rollouts_keeps_its_proposals(world):
    asked = world[3]
    lengths = asked.rollouts.lengths.tolist()
    proposed = torch.arange(sum(lengths))[:, None]
    some = replace(asked, proposed=proposed).select([3, 1])
    parts = proposed.split(lengths)
    assert torch.equal(some.proposed, torch.cat([parts[3], parts[1]]))


def test_a_teacher_that_waits_for_proposals_does_not_do_without(world):
    with pytest.raises(ValueError, match="student's proposals"):
        remote(world, fake_of(world), method=TAIL).score(world[3], micro_tokens=1)
