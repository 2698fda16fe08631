"""A run in which a calculator answers the student, from the job over its records to questions about it."""

from __future__ import annotations

import pytest

from opd_core.tasks import tools
from opd_core.tasks.demo_tokenizer import make_tokenizer
from tests.cli.running import Running
from tests.tiny import TinyWorld, write_tiny_model

pytestmark = pytest.mark.service

PROMPT = "Ann has 12 apples . First she buys 5 . How many ?"


def test_a_run_with_a_calculator_is_trained_shown_planned_again_asked_and_exported(
    running: Running, tiny_world: TinyWorld
) -> None:
    client, tokenizer = running.client, make_tokenizer(tools.WRITING.words)
    student, teacher = (
        write_tiny_model(tiny_world.root / f"tools-{name}", tokenizer, width=width, tied=tied)
        for name, width, tied in (("student", 32, True), ("teacher", 48, False))
    )
    job = client.submit(
        running.spec(
            student={"model": str(student)},
            teacher={"model": str(teacher)},
            task={"name": tools.TASK, "eval_examples": 8},
            recipe="gae-opd",
            rollout={"prompts_per_step": 12, "max_new_tokens": 24},
            schedule={"steps": 2, "evaluate_every": 0, "checkpoint_every": 0},
            telemetry={"sequences_per_step": 12, "top_k": 4, "probe_states": 6, "recovery_problems": 4},
        )
    )
    done = client.wait(job.id, timeout_s=180)
    assert done.status == "succeeded", done.error
    assert 0 < done.progress.student_tokens <= 2 * 12 * 24

    recorded = [client.sequence(job.id, 1, summary.n) for summary in client.sequences(job.id, 1).data]
    answered = next(sequence for sequence in recorded if any(token.reply for token in sequence.tokens))
    for token in (token for sequence in recorded for token in sequence.tokens):
        assert bool(token.reply) <= (token.text.strip() == tools.CALL)
        assert not token.reply or token.reply[0].text.strip() == "="
    assert answered.length == len(answered.tokens) <= 24
    assert f"{tools.CALL} = " in answered.completion  # the answer is part of what was written, and of what was verified
    assert len(answered.completion.split()) > answered.length - 1

    own = client.answer(client.replan(job.id, 1, recipe="gae-opd", sequences=[answered.n]), timeout_s=180)
    assert own.status == "answered", own.error
    (pair,) = own.result.sequences
    for before, after in zip(answered.tokens, pair.replanned.tokens, strict=True):
        assert after.advantage == pytest.approx(before.advantage, abs=1e-5)
        assert after.reply == before.reply
    for seed in range(12):  # it has learned nothing and calls by chance
        asked = client.probe(job.id, PROMPT, temperature=1.0, max_new_tokens=60, seed=seed)
        probe = client.answer(asked, timeout_s=180)
        assert probe.status == "answered", probe.error
        if any(token.reply for token in probe.result.sequence.tokens):
            break
    else:
        pytest.fail("in twelve probes nobody was answered")
