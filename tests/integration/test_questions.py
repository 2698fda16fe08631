"""Questions to a real service: both kinds are answered while another job trains."""

from __future__ import annotations

import pytest

from tests.cli.running import Running
from tests.waiting import wait_until

pytestmark = pytest.mark.service


def test_what_if_and_probe_are_answered_beside_training(running: Running) -> None:
    client = running.client
    done = client.submit(running.spec(recipe="cr-opd"))
    client.wait(done.id, timeout_s=180)
    busy = client.submit(running.spec(schedule={"steps": 100_000, "evaluate_every": 0, "checkpoint_every": 0}))
    wait_until(lambda: (client.job(busy.id).progress.step or 0) >= 1, "the other job trains", 120)

    asked = [
        client.replan(done.id, 2, recipe="cr-opd", sequences=[0]),
        client.replan(done.id, 2, recipe="apo"),
        client.probe(done.id, "3 + 4 =", temperature=0.0),
    ]
    own, refused, probe = (client.answer(question, timeout_s=180) for question in asked)

    assert own.status == "answered", own.error
    (sequence,) = own.result.sequences
    recorded = client.sequence(done.id, 2, 0)
    assert sequence.recorded.tokens == recorded.tokens
    for before, after in zip(recorded.tokens, sequence.replanned.tokens, strict=True):
        assert after.coefficient == pytest.approx(before.coefficient, abs=1e-5)
        assert after.advantage == pytest.approx(before.advantage, abs=1e-5)
    assert own.result.marks["coefficient"].exact
    assert all(forces[0].id == token.id for forces, token in zip(sequence.forces, recorded.tokens, strict=True))

    assert refused.status == "failed"
    assert refused.error.param == "method"
    assert "the student at the start of the run" in refused.error.message

    assert probe.status == "answered", probe.error
    assert probe.result.checkpoint == "step-000004.a1"
    assert probe.result.sequence.prompt == "3 + 4 ="
    assert probe.result.sequence.tokens[0].student_top

    assert client.job(busy.id).status == "running"  # nobody waited for it
    client.cancel(busy.id)
    client.wait(busy.id, timeout_s=60)
