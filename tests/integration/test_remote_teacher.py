"""A job whose teacher is a server: it trains, rests when the server vanishes, and goes on as if nothing had been."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from opd_core.models import load_model
from opd_core.spec import ModelSpec
from tests.cli.running import Running
from tests.loopback import Loopback
from tests.teachers.fake_server import FakeServer
from tests.waiting import wait_until

pytestmark = pytest.mark.service


class TeacherServer(Loopback):
    """The tiny teacher on a loopback port."""

    def __init__(self, model: Path, root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPD_MODEL_ROOTS", str(root))
            lm = load_model(ModelSpec(model=str(model)), device="cpu", trainable=False, role="teacher")
        self.answers = FakeServer(lm)
        super().__init__(self.answers)


@pytest.fixture
def server(running: Running, tiny_world: Any) -> Iterator[TeacherServer]:
    server = TeacherServer(tiny_world.teacher, tiny_world.root)
    entry = {"url": server.url, "model": "tiny", "top_k": 16, "patience_s": 1.0}
    (running.home / "endpoints.yaml").write_text(json.dumps({"big-teacher": entry}))
    yield server
    server.close()


@pytest.fixture
def able(server: TeacherServer) -> TeacherServer:
    server.answers.candidates = True
    return server


def spec_of(running: Running, **changes: Any) -> dict[str, Any]:
    return running.spec(
        recipe="tml-opd",
        schedule={"steps": 40, "evaluate_every": 0, "checkpoint_every": 0},
        telemetry={"sequences_per_step": 0},
        **{"teacher": {"endpoint": "big-teacher"}, **changes},
    )


def test_it_trains_pauses_when_the_server_vanishes_and_goes_on(running: Running, server: TeacherServer) -> None:
    client = running.client
    whole = client.wait(client.submit(spec_of(running)).id, timeout_s=180, poll_s=0.2)
    assert whole.status == "succeeded", whole.error
    assert whole.accuracy.teacher is not None  # it was asked to solve the held-out problems
    report = client.report(whole.id)
    assert report.models["teacher"]["name"] == "tiny at big-teacher"

    job = client.submit(spec_of(running)).id
    wait_until(lambda: (client.job(job).progress.step or 0) >= 5, seconds=120)
    server.down = True
    wait_until(lambda: client.job(job).status == "paused", seconds=120)
    resting = client.job(job)
    assert resting.error is None
    assert any(event.type == "teacher_unreachable" for event in client.events(job).data)
    server.down = False
    client.resume(job)
    done = client.wait(job, timeout_s=180, poll_s=0.2)
    assert done.status == "succeeded", done.error
    assert done.attempt == 2
    one, two = (running.run_directory(id) / "student" / "model.safetensors" for id in (whole.id, job))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.long  # tests/teachers/test_candidates does it without a service
def test_what_the_server_can_do_is_told_and_used(running: Running, able: TeacherServer) -> None:
    client = running.client
    wanted = {"recipe": "union-topk", "schedule": {"steps": 4, "evaluate_every": 0, "checkpoint_every": 0}}
    here, away = (
        client.wait(client.submit({**running.spec(**wanted), **teacher}).id, timeout_s=180, poll_s=0.2)
        for teacher in ({}, {"teacher": {"endpoint": "big-teacher"}})
    )
    assert (here.status, away.status) == ("succeeded", "succeeded"), away.error
    (told,) = [event for event in client.events(away.id).data if event.type == "teacher_server"]
    assert told.data["candidates"] is True
    assert "student_top_k" in told.data["supports"]
    ours, theirs = (load_file(running.run_directory(run.id) / "student" / "model.safetensors") for run in (here, away))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, atol=1e-4, rtol=0)

    able.answers.candidates = False
    refused = client.wait(client.submit({**running.spec(**wanted), "teacher": {"endpoint": "big-teacher"}}).id)
    assert refused.status == "failed"
    assert refused.error is not None
    assert refused.error.param == "method.support"
    assert "a server that scores given candidates" in refused.error.message


def test_a_server_that_nobody_registered_is_refused_at_the_door(running: Running, server: TeacherServer) -> None:
    from api.client import ApiError

    with pytest.raises(ApiError, match="no teacher server 'other'"):
        running.client.submit(spec_of(running, teacher={"endpoint": "other"}))
    with pytest.raises(ApiError, match="without a folder for weights"):
        running.client.submit(spec_of(running, rollout={"endpoint": "big-teacher"}))
