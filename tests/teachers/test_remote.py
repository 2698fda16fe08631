"""A teacher behind HTTP: as in the process, patient in trouble, refused with the reason where it cannot serve."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
import torch

from opd_core.recipes import adapt, resolve
from opd_core.rollout import imitated, write
from opd_core.runs.endpoints import endpoint, endpoints
from opd_core.runs.settings import Settings
from opd_core.servers import ServerUnreachable
from opd_core.spec import JobSpec, UserError
from opd_core.teachers import RemoteTeacher, Teacher, Voice
from tests.teachers.fake_server import FakeServer
from tests.teachers.served import gradients, remote

COMPLETIONS = "/v1/completions"


def topk(k):
    """A method that looks at k favourites of the teacher."""
    return adapt("topk-forward-kl", {"support": {"k": k}})


@pytest.mark.parametrize("context", [None, "{answer} = {prompt}"])
@pytest.mark.parametrize("recipe", ["tml-opd", "topk-forward-kl", "aopd", "cr-opd"])
def test_it_gives_the_log_ratios_and_gradients_of_the_same_model_in_the_process(world, recipe, context):
    _, lm, task, _ = world
    everything = min(64, lm.vocab_size)
    away = remote(world, context=context, top_k=everything if recipe != "tml-opd" else 1)
    here = Teacher([Voice("teacher", lm, context=context)], task)
    theirs, far = gradients(world, away, adapt(recipe, {}))
    ours, near = gradients(world, here, adapt(recipe, {}))
    torch.testing.assert_close(far.feedback.log_ratio, near.feedback.log_ratio, atol=1e-4, rtol=0)
    assert float(ours.norm()) > 0
    torch.testing.assert_close(theirs, ours, atol=1e-4 * float(ours.norm()), rtol=0)


@pytest.mark.parametrize("recipe", ["tml-opd", "topk-forward-kl"])
def test_what_an_environment_said_is_read_and_not_scored(world, recipe):
    student, lm, task, asked = world
    before = asked.rollouts
    acted = [[place % 3 != 1 or place + 1 == len(ids) for place in range(len(ids))] for ids in before.completions()]
    prompts = [ids[mask].tolist() for ids, mask in zip(before.prompts, before.prompt_mask, strict=True)]
    holed = replace(asked, rollouts=imitated(prompts, before.completions(), student, acted))
    world = (student, lm, task, holed)
    theirs, far = gradients(world, remote(world, top_k=min(64, lm.vocab_size)), adapt(recipe, {}))
    ours, near = gradients(world, Teacher([Voice("teacher", lm)], task), adapt(recipe, {}))
    assert len(far.plan) == sum(map(sum, acted)) < int(before.mask.sum())
    torch.testing.assert_close(far.feedback.log_ratio, near.feedback.log_ratio, atol=1e-4, rtol=0)
    torch.testing.assert_close(theirs, ours, atol=1e-4 * float(ours.norm()), rtol=0)
    # The same states as without holes: nothing is cut out of what the teacher reads.
    _, whole = gradients((student, lm, task, asked), Teacher([Voice("teacher", lm)], task), adapt(recipe, {}))
    kept = torch.tensor([own for row in acted for own in row])
    packed = near.feedback.teacher_logp[near.feedback.mask]
    torch.testing.assert_close(packed, whole.feedback.teacher_logp[whole.feedback.mask][kept], atol=1e-4, rtol=0)


def test_what_is_not_told_is_spread_evenly_and_everything_adds_up(world):
    _, lm, _, asked = world
    scored = remote(world, top_k=3).score(asked, micro_tokens=10)
    logp = scored.scores.rows[slice(None)].log_probs(1.0)
    torch.testing.assert_close(logp.exp().sum(1), torch.ones(len(logp)), atol=1e-4, rtol=0)
    assert len(scored.scores.ends) == 5
    counted = logp.round(decimals=4).unique(dim=1)
    assert counted.shape[1] < lm.vocab_size  # most tokens share one value
    assert scored.tokens == int(asked.rollouts.mask.sum() + asked.rollouts.prompt_mask.sum())


def test_it_solves_problems_greedily(world):
    _, lm, task, _ = world
    from opd_core.training.evaluation import completions

    teacher = remote(world)
    greedy = write(lm, [task.encode(problem) for problem in task.eval], max_new_tokens=6, noise=None)
    assert teacher.solve(task.eval, 6) == completions(lm, greedy)


def test_a_short_trouble_is_waited_out(world):
    _, lm, _, asked = world
    troubles = iter([httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(429)])
    fake = FakeServer(lm, fail=lambda: next(troubles, None))
    teacher = remote(world, fake, patience_s=30.0, concurrency=1)
    found = teacher.score(asked, micro_tokens=1).scores.rows[slice(None)].log_probs(1.0)
    calm = remote(world).score(asked, micro_tokens=1).scores.rows[slice(None)].log_probs(1.0)
    assert torch.equal(found, calm)
    assert teacher.server.retries == 3


def test_a_vanished_server_is_named_after_its_patience(world):
    fake = FakeServer(world[1], fail=lambda: httpx.ConnectError("refused"))
    with pytest.raises(ServerUnreachable, match=r"'big' has not answered for 0\.3 s \(ConnectError\)"):
        remote(world, fake, patience_s=0.3).score(world[3], micro_tokens=1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(401), "refuses our key"),
        (httpx.Response(400, text="no prompt_logprobs here"), "status 400: 'no prompt_logprobs here'"),
        (httpx.Response(302, headers={"location": "http://169.254.169.254/"}), "status 302"),
        (httpx.Response(200, json={"choices": []}), "no choices"),
        (httpx.Response(200, json=[]), "not a JSON object"),
        (httpx.Response(200, text="<html>"), "does not answer in JSON"),
        (httpx.Response(200, json={"choices": [{"text": "x"}]}), "gives no log-probabilities"),
        (httpx.Response(200, json={"choices": [{"prompt_logprobs": [None]}]}), "gives no log-probabilities"),
    ],
)
def test_an_unsuitable_server_is_refused_with_the_reason(world, answer, said):
    fake = FakeServer(world[1], fail=lambda: answer)
    with pytest.raises(UserError) as raised:
        remote(world, fake).check(adapt("tml-opd", {}))
    assert said in raised.value.message
    assert raised.value.param == "teacher.endpoint"
    assert fake.paths in ([COMPLETIONS], [COMPLETIONS] * 2, [COMPLETIONS, "/generate"])  # neither again nor elsewhere


def test_it_is_checked_for_vocabulary_and_favourites(world):
    remote(world).check(topk(8))
    with pytest.raises(UserError, match="looks at 9 favourites"):
        remote(world).check(topk(9))
    student, lm, task, _ = world
    narrow = RemoteTeacher(FakeServer(lm).server(top_k=8), task, vocabulary=student.vocab_size - 20, context=None)
    with pytest.raises(UserError, match="another vocabulary"):
        narrow.check(topk(1))


def test_the_key_is_sent_and_said_nowhere(world, tmp_path):
    (tmp_path / "key").write_text("hunter2-hunter2\n")
    fake = FakeServer(world[1], fail=lambda: httpx.Response(500))
    teacher = remote(world, fake, key_file=tmp_path / "key", patience_s=0.0)
    with pytest.raises(ServerUnreachable) as raised:
        teacher.check(topk(1))
    assert fake.headers[0]["authorization"] == "Bearer hunter2-hunter2"
    assert "hunter2" not in f"{raised.value} {teacher.server.endpoint!r} {teacher.name}"


BASE = {
    "name": "x",
    "student": {"model": "demo/student"},
    "teacher": {"endpoint": "big"},
    "task": {"name": "demo/word-problems"},
}


@pytest.mark.parametrize(
    ("recipe", "method", "accepted"),
    [
        ("tml-opd", {}, True),
        ("cr-opd", {}, True),
        ("topk-forward-kl", {}, True),
        ("forward-kl", {}, False),
        ("topk-tail", {}, True),
        ("union-topk", {}, True),
        ("tml-opd", {"objective": {"route": "log_ratio", "teacher_temperature": 0.5}}, False),
    ],
)
def test_what_a_server_cannot_give_is_refused_at_submission(recipe, method, accepted):
    spec = JobSpec.model_validate({**BASE, "recipe": recipe, "method": method})
    if accepted:
        resolve(spec)
        return
    with pytest.raises(UserError, match="teacher server") as raised:
        resolve(spec)
    assert raised.value.param == "method.support"


def test_a_server_writes_nothing():
    with pytest.raises(UserError, match="only scores"):
        resolve(JobSpec.model_validate({**BASE, "recipe": "tml-opd", "rollout": {"teacher_mix": 0.2}}))


def test_the_operator_names_the_servers(tmp_path):
    settings = Settings(home=tmp_path)
    assert endpoints(settings) == {}
    with pytest.raises(UserError, match="none is registered"):
        endpoint(settings, "big", param="teacher.endpoint")
    file = tmp_path / "endpoints.yaml"
    file.write_text("big: {url: 'http://10.0.0.5:8000', model: m}\n")
    assert endpoint(settings, "big", param="teacher.endpoint").model == "m"
    for text, said in (
        ("big: {url: 'ftp://x', model: m}", "url"),
        ("big: {url: 'http://x', model: m, key: secret}", "no such field"),
        ("big: [", "not YAML"),
    ):
        file.write_text(text)
        with pytest.raises(UserError) as raised:
            endpoints(settings)
        assert said in raised.value.message
        assert raised.value.code == "broken_endpoints"
