"""vLLM as the writer of rollouts: it follows the student's weights, and is caught where it does not."""

from __future__ import annotations

import pytest
import torch

from opd_core.models import load_student
from opd_core.rollout import AdapterHandover, ServedStudent, WholeHandover
from opd_core.rollout.handover import models
from opd_core.spec import JobSpec, UserError
from tests.tiny import tiny_body


def student_of(served, **changes):
    body = tiny_body(served.world, student={"model": str(served.world.student), **changes})
    return load_student(JobSpec.model_validate(body), trainable=True)


def writer_of(served, student, **settings):
    server = served.server("fast-writer", "rollout", **settings)
    kind = WholeHandover if student.adapter is None else AdapterHandover
    return ServedStudent(server, student, kind(server, "run"))


def rows(writer, step, **settings):
    prompts = [writer._student.tokenizer(f"{a} + 3 =")["input_ids"] for a in range(8)]
    wanted = {"max_new_tokens": 8, "temperature": 1.0, "top_p": 1.0, **settings}
    return writer.write(prompts, step=step, seeds=range(8), **wanted)


@torch.no_grad()
def move(student):
    for parameter in student.model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("changes", [{"lora": {"rank": 8}}, {}], ids=["adapter", "whole"])
def test_it_writes_with_the_weights_that_it_was_handed(served, changes, handed_back):
    student = student_of(served, **changes)
    writer = writer_of(served, student)
    writer.check()
    logps = []
    for step in (1, 2, 3):
        written = rows(writer, step)
        said, own = written.behaviour_logp[written.mask], writer._own(written, 1.0, 1.0).detach()
        print(f"step {step}: log-probabilities within {float((said - own).abs().max()):.1e} nats")
        torch.testing.assert_close(said, own, atol=1e-4, rtol=0)
        logps.append(float(own.mean()))
        move(student)
    assert len(set(logps)) == 3
    writer.handover.give = lambda _: writer.handover._current if changes else "tiny"
    with pytest.raises(UserError, match="has not taken the student's weights"):
        rows(writer, 4)
    writer.end()
    assert models(writer.server) == ["tiny"]


def test_the_same_seeds_give_the_same_rows(served):
    writer = writer_of(served, student_of(served, lora={"rank": 8}))
    assert torch.equal(rows(writer, 1).tokens, rows(writer, 1).tokens)
    writer.end()


def test_log_probabilities_from_before_the_temperature_are_refused(served):
    writer = writer_of(served, student_of(served, lora={"rank": 8}))
    with pytest.raises(UserError, match="--logprobs-mode processed_logprobs"):
        rows(writer, 1, temperature=0.5)
    writer.end()


def test_an_adapter_that_the_server_cannot_take_is_refused_in_its_words(served):
    writer = writer_of(served, student_of(served, lora={"rank": 32}))
    with pytest.raises(UserError, match="max_lora_rank"):
        rows(writer, 1)
