"""Jobs through the service whose teacher is a vLLM, and whose rows one writes: they rest while it is gone."""

from __future__ import annotations

import json

import pytest

from tests.cli.running import running_service
from tests.cli.test_examples import EXAMPLES, train
from tests.waiting import wait_until

LORA = {"lora": {"rank": 8}}


@pytest.fixture(scope="module")
def running(served, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "endpoints.yaml").write_text(json.dumps(served.entries()))
    with running_service(home, served.world) as service:
        yield service


def spec_of(running, served, lora=None, **rollout):
    return running.spec(
        recipe="tml-opd",
        student={"model": str(served.world.student), **(lora or {})},
        teacher={"endpoint": "big-teacher"},
        rollout={"prompts_per_step": 6, "max_new_tokens": 8, **rollout},
        schedule={"steps": 60, "evaluate_every": 0, "checkpoint_every": 0},
        optimizer={"lr": 1e-2, "warmup_steps": 2},
    )


def rests_and_goes_on(running, spec, server, kind):
    """The job ends well although ``server`` is killed in its midst."""
    client = running.client
    job = client.submit(spec).id
    wait_until(lambda: (client.job(job).progress.step or 0) >= 3, lambda: str(client.job(job).error), 900)
    server.stop()
    wait_until(lambda: client.job(job).status == "paused", lambda: str(client.job(job)), 120)
    assert kind in {event.type for event in client.events(job).data}
    reached = client.job(job).progress.step
    server.start()
    server.wait()
    client.resume(job)
    done = client.wait(job, timeout_s=900, poll_s=0.5)
    assert done.status == "succeeded", done.error
    resumed = [event for event in client.events(job).data if event.type == "resumed"]
    assert resumed[-1].data["step"] == reached  # what it had was saved
    return client.report(job)


def test_a_job_rests_while_its_teacher_is_gone(running, served):
    report = rests_and_goes_on(running, spec_of(running, served), served.teacher, "teacher_unreachable")
    assert report.models["teacher"]["name"] == "tiny at big-teacher"


def test_a_job_rests_while_its_writer_is_gone(running, served):
    spec = spec_of(running, served, LORA, endpoint="fast-writer")
    report = rests_and_goes_on(running, spec, served.writer, "rollout_unreachable")
    assert any("not bit for bit" in warning for warning in report.warnings)


def test_all_weights_of_a_student_are_handed_over(running, served, handed_back):
    client = running.client
    spec = {**spec_of(running, served, endpoint="fast-writer"), "schedule": {"steps": 8, "evaluate_every": 0}}
    done = client.wait(client.submit(spec).id, timeout_s=900, poll_s=0.5)
    assert done.status == "succeeded", done.error


def test_the_example_trains_to_its_end(served, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "endpoints.yaml").write_text(json.dumps(served.entries()))
    changes = [f"student.model={served.world.student}", f"teacher.model={served.world.teacher}"]
    changes += ["rollout.prompts_per_step=16", "rollout.max_new_tokens=8", "task.eval_examples=16"]
    # The demo's own models have heads too small for vLLM's attention on a CPU, and its tasks their words.
    changes += [f"task.dataset={served.world.problems}", "task.name=null"]
    changes += ["task.prompt_column=question", "task.answer_column=answer"]
    train(EXAMPLES / "states" / "served.yaml", home, tmp_path / "out", *changes)
