"""Rows by a server: the student's own, by the weights of the step, or a sentence that says why not."""

from __future__ import annotations

import httpx
import pytest
import torch

from opd_core.models import load_student
from opd_core.recipes import resolve
from opd_core.rollout import AdapterHandover, ServedStudent, WholeHandover
from opd_core.runs.endpoints import rollout_endpoint
from opd_core.runs.settings import Settings
from opd_core.servers import ServerUnreachable
from opd_core.spec import UserError
from tests.rollout.fake_vllm import FakeVLLM

LORA, WHOLE = {"lora": {"rank": 4}}, {}


@pytest.fixture
def pair(tiny_world, tiny_spec, tmp_path):
    """A factory: the student, a fake server of its base model, and the two together."""

    def make(changes, **settings):
        spec = tiny_spec(student={"model": str(tiny_world.student), **changes})
        student, fake = load_student(spec, trainable=True), FakeVLLM(spec)
        server = fake.server(**{"handover": tmp_path, **settings})
        return (
            student,
            fake,
            ServedStudent(server, student, (AdapterHandover if changes else WholeHandover)(server, "run")),
        )

    return make


def rows(served, step=1, **settings):
    prompts = [served._student.tokenizer(f"{a} + 3 =")["input_ids"] for a in range(6)]
    wanted = {"max_new_tokens": 5, "temperature": 1.0, "top_p": 1.0, **settings}
    return served.write(prompts, step=step, seeds=range(len(prompts)), **wanted)


def move(student, by=0.3):
    with torch.no_grad():
        for parameter in student.model.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("changes", [LORA, WHOLE])
def test_each_step_is_written_by_the_weights_before_it(pair, tmp_path, changes):
    student, fake, served = pair(changes)
    first = rows(served)
    assert torch.equal(rows(served).tokens, first.tokens)  # the same step again: nothing is handed over
    handed = [path for path, _ in fake.asked if path in ("/v1/load_lora_adapter", "/collective_rpc")]
    assert len(handed) == 1
    move(student)
    second = rows(served, step=2)
    assert not torch.equal(second.behaviour_logp, first.behaviour_logp)
    own = served._own(second, 1.0, 1.0)
    torch.testing.assert_close(second.behaviour_logp[second.mask], own, atol=1e-5, rtol=0)
    assert len(fake.adapters) == (1 if changes else 0)  # the one before was dropped
    assert len(list((tmp_path / "run").iterdir())) == 1
    served.end()
    assert not fake.adapters
    assert not (tmp_path / "run").exists()


def test_nothing_that_shapes_the_distribution_is_left_to_the_server(pair):
    _, fake, served = pair(LORA)
    rows(served, temperature=0.7, top_p=0.9)
    (body, *_) = (body for path, body in fake.asked if path == "/v1/completions")
    said = {"temperature": 0.7, "top_p": 0.9, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert said.items() <= body.items()
    assert body["presence_penalty"] == body["frequency_penalty"] == 0.0
    assert body["stop_token_ids"] == list(served._student.eos_ids)


@pytest.mark.parametrize("changes", [LORA, WHOLE])
def test_a_server_that_has_not_taken_the_weights_is_found_out(pair, changes):
    student, fake, served = pair(changes)
    fake.deaf = True
    rows(served)
    move(student)
    with pytest.raises(
        UserError, match=r"has not taken the student's weights: .* -\d.* by its own .* -\d.* 0\.001 is"
    ) as told:
        rows(served, step=2)
    assert ("start it anew" in told.value.message) == (changes is LORA)  # its own weights may be another job's


def test_log_probabilities_from_before_the_temperature_are_refused(pair):
    _, fake, served = pair(LORA)
    fake.processed = False
    rows(served)  # at temperature 1 there is no difference
    with pytest.raises(UserError, match="--logprobs-mode processed_logprobs"):
        rows(served, step=2, temperature=0.5)


@pytest.mark.parametrize("changes", [LORA, WHOLE])
def test_a_restarted_server_is_handed_the_weights_again(pair, changes):
    student, fake, served = pair(changes)
    move(student)
    rows(served)
    restarts = iter([False, False, True])
    fake.fail = lambda: fake.restart() if next(restarts, False) else None
    again = rows(served)
    own = served._own(again, 1.0, 1.0)
    torch.testing.assert_close(again.behaviour_logp[again.mask], own, atol=1e-5, rtol=0)
    fake.fail = fake.restart  # before every answer
    with pytest.raises(UserError, match="loses the weights"):
        rows(served)


def test_what_an_earlier_attempt_left_is_removed(pair, tmp_path):
    _, fake, served = pair(LORA)
    rows(served)
    (left,) = fake.adapters
    fake.adapters["opd-other-1"] = fake.base
    next_attempt = ServedStudent(served.server, served._student, AdapterHandover(served.server, "run"))
    rows(next_attempt)
    assert "opd-other-1" in fake.adapters
    assert left not in fake.adapters
    assert len(fake.adapters) == 2
    assert len(list((tmp_path / "run").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        (LORA, {"loads_adapters": False}, "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        (WHOLE, {"dev_mode": False}, "VLLM_SERVER_DEV_MODE=1, or train an adapter"),
    ],
)
def test_a_server_that_takes_no_weights_says_how_to_start_it(pair, changes, settings, said):
    _, fake, served = pair(changes)
    for name, value in settings.items():
        setattr(fake, name, value)
    with pytest.raises(UserError, match=said) as raised:
        rows(served)
    assert raised.value.param == "rollout.endpoint"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"text": "x"}, "does not answer the ids"),
        ({"token_ids": [5, 6], "logprobs": {"token_logprobs": [-1.0]}}, "does not answer the ids"),
        ({"token_ids": [10_000], "logprobs": {"token_logprobs": [-1.0]}}, "another vocabulary"),
        ({"token_ids": [5] * 5, "logprobs": {"token_logprobs": [7.0] * 5}}, "no log-probability"),
        ({"token_ids": [5], "logprobs": {"token_logprobs": [-1.0]}, "finish_reason": "abort"}, r"after 1 of 5 .*abort"),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused_with_the_reason(pair, choice, said):
    _, fake, served = pair(LORA)
    rows(served)
    fake.fail = lambda: httpx.Response(200, json={"choices": [choice]})
    with pytest.raises(UserError, match=said):
        rows(served)


def test_a_folder_that_is_not_there_and_an_adapter_that_is_refused_are_named(pair, tmp_path):
    _, fake, served = pair(LORA, handover=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere/run \(handover\): No such file or directory"):
        rows(served)
    _, fake, served = pair(LORA)
    refusal = httpx.Response(500, json={"error": {"message": "LoRA rank 4 is greater than max_lora_rank 2."}})
    fake.fail = lambda: refusal if fake.asked[-1][0] == "/v1/load_lora_adapter" else None
    with pytest.raises(UserError, match="rank 4 is greater than"):
        rows(served)
    assert served.server.retries == 0


def test_a_vanished_server_is_named_after_its_patience(pair):
    _, fake, served = pair(LORA, patience_s=0.3)
    fake.fail = lambda: httpx.ConnectError("refused")
    with pytest.raises(
        ServerUnreachable, match=r"the rollout server 'fast-writer' has not answered for 0\.3 s"
    ) as raised:
        served.check()
    assert raised.value.role == "rollout"
    fake.fail = lambda: httpx.Response(200, json={"data": [{"id": "other"}]})
    with pytest.raises(UserError, match="serves 'other', and is registered for 'tiny'"):
        served.check()


@pytest.mark.parametrize(
    ("sections", "param"),
    [
        ({"rollout": {"endpoint": "fast-writer", "teacher_mix": 0.2}}, "rollout.teacher_mix"),
        ({"rollout": {"endpoint": "fast-writer"}, "task": {"name": "demo/tools"}}, "rollout.endpoint"),
        ({"rollout": {"endpoint": "fast-writer", "written_by": {"student": 0, "teacher": 1}}}, "rollout.endpoint"),
        ({"rollout": {"endpoint": "fast-writer"}, "resources": {"processes": 2}}, "resources.processes"),
    ],
)
def test_what_a_server_cannot_do_is_refused_at_submission(tiny_spec, sections, param):
    with pytest.raises(UserError) as raised:
        resolve(tiny_spec(**sections))
    assert raised.value.param == param


def test_the_operator_registers_it_with_a_folder(tmp_path):
    settings, file = Settings(home=tmp_path), tmp_path / "endpoints.yaml"
    with pytest.raises(UserError, match="there is no rollout server 'w'"):
        rollout_endpoint(settings, "w")
    file.write_text("w: {url: 'http://10.0.0.5:8000', model: m}\n")
    with pytest.raises(UserError, match="without a folder for weights"):
        rollout_endpoint(settings, "w")
    file.write_text("w: {url: 'http://10.0.0.5:8000', model: m, handover: here}\n")
    with pytest.raises(UserError, match="absolute path"):
        rollout_endpoint(settings, "w")
    file.write_text("w: {url: 'http://10.0.0.5:8000', model: m, handover: /mnt/h, handover_there: /data}\n")
    assert str(rollout_endpoint(settings, "w").handover_there) == "/data"
