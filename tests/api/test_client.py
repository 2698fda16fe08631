"""The typed client against a really running service."""

import threading
import time

import httpx
import pytest

from api.client import ApiError, Client
from api.main import create_app
from opd_core.runs.live import LiveWriter
from opd_core.spec import JobSpec
from tests.api.conftest import SPEC, TOKEN
from tests.api.test_telemetry import publish


def test_a_job_from_submission_to_its_files(client, services, tmp_path, broker):
    assert client.ready().status == "ready"
    checked = client.validate(SPEC)
    assert checked.resolved_spec["method"]["objective"]["route"] == "direct"
    job = client.submit(JobSpec.model_validate(SPEC))
    assert (job.status, job.terminal) == ("queued", False)
    store, live = services.store, LiveWriter(broker.url)
    claim = store.claim(job.id, "w1", 30)
    store.add_metrics(job.id, 1, 1, {"loss": 0.5})
    checkpoint = publish(services.files(job.id), store, job.id, tmp_path, "student", "export")

    def finish():
        live.publish(job.id, "progress", {"step": 1})
        store.finish(job.id, claim.attempt, "succeeded", report={"seed": 0, "mine": 1})
        live.publish(job.id, "end", {})

    events = []
    for event in client.stream(job.id):
        if not events:  # the stream is open
            finish()
        events.append(event)
    assert [kind for _, kind, _ in events] == ["status", "progress", "status", "end"]
    assert client.wait(job.id, timeout_s=60).status == "succeeded"
    assert client.job(job.id).latest_checkpoint == checkpoint.id
    assert [found.id for found in client.jobs(status="succeeded").data] == [job.id]
    assert client.events(job.id).data[0].type == "created"
    assert client.events(job.id, after=1).data[0].type == "claimed"
    assert client.metrics(job.id, keys=["loss"]).series == {"loss": [0.5]}
    assert client.attempts(job.id).data[0].worker == "w1"
    assert client.report(job.id).seed == 0
    assert client.report(job.id).model_extra == {"mine": 1}
    assert client.steps(job.id).data == []
    assert client.routing(job.id, from_step=0, rows=3).states == 0
    paths = client.download(job.id, client.checkpoints(job.id).data[0].id, tmp_path / "got")
    assert sorted(str(path.relative_to(tmp_path / "got")) for path in paths) == ["model.safetensors", "sub/a b.json"]
    assert paths[0].read_bytes() == bytes(range(256)) * 3000
    assert client.recipe("gkd").name in [recipe.name for recipe in client.recipes().data]
    assert client.workers().data == []
    assert client.models().data[0].kind == "demo"
    assert client.tasks().data[0].name == "demo/word-problems"


def test_errors_say_what_and_where(client):
    with pytest.raises(ApiError) as caught:
        client.submit({**SPEC, "optimizer": {"lr": -1}})
    error = caught.value
    assert (error.status, error.param, error.type) == (422, "optimizer.lr", "urn:opd:problem:invalid_spec")
    assert "optimizer.lr" in str(error)
    with pytest.raises(ApiError) as caught:
        client.job("job_nope")
    assert caught.value.status == 404
    with pytest.raises(ApiError) as caught:
        list(client.stream("job_nope"))
    assert caught.value.status == 404
    with Client(client.url, "wrong") as stranger, pytest.raises(ApiError) as caught:
        stranger.jobs()
    assert caught.value.status == 401


def test_a_submission_is_one_job_even_when_the_answer_is_lost(client, monkeypatch):
    send, lost = client._http.request, []

    def unlucky(*args, **options):
        answer = send(*args, **options)
        if not lost:
            lost.append(answer.json()["id"])
            raise httpx.ReadError("the answer is lost")
        return answer

    monkeypatch.setattr(client._http, "request", unlucky)
    assert client.submit(SPEC).id == lost[0]
    assert len(client.jobs().data) == 1
    assert client.submit(SPEC).id != lost[0], "another submission is another job"
    key = {"idempotency_key": "mine"}
    assert client.submit(SPEC, **key).id == client.submit(SPEC, **key).id


def test_cancel(client):
    job = client.submit(SPEC)
    assert client.cancel(job.id).status == "cancelled"
    assert [kind for _, kind, _ in client.stream(job.id)] == ["status", "end"]


def test_a_stream_survives_a_restart_of_the_service(settings, serve, broker):
    first = create_app(settings)
    server = serve(first)
    store, live = first.state.services.store, LiveWriter(broker.url)
    with Client(server.url, TOKEN) as client:
        job = client.submit(SPEC)
        claim = store.claim(job.id, "w1", 30)
        live.publish(job.id, "progress", {"step": 0})
        steps, seen = [], threading.Event()

        def watch():
            for _, kind, data in client.stream(job.id, after="0-0"):
                if kind == "progress":
                    steps.append(data["step"])
                    seen.set()

        viewer = threading.Thread(target=watch)
        viewer.start()
        assert seen.wait(10)
        started = time.monotonic()
        server.stop()  # with the stream open
        assert time.monotonic() - started < 10
        live.publish(job.id, "progress", {"step": 1})
        again = create_app(settings)
        serve(again)
        live.publish(job.id, "progress", {"step": 2})
        again.state.services.store.finish(job.id, claim.attempt, "succeeded")
        viewer.join(20)
        assert not viewer.is_alive()
    assert steps == [0, 1, 2]


def test_a_service_that_is_away_is_an_error_in_the_end(port, monkeypatch):
    monkeypatch.setattr("api.client.transport.FIRST_PAUSE_S", 0.001)
    with Client(f"http://127.0.0.1:{port}", TOKEN) as client:
        with pytest.raises(httpx.ConnectError):
            client.jobs()
        with pytest.raises(httpx.ConnectError):
            list(client.stream("job_x"))


def test_url_and_token_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OPD_API_URL", "http://example.test:1/")
    monkeypatch.setenv("OPD_API_TOKEN", "t")
    with Client() as client:
        assert client.url == "http://example.test:1"
        assert client._http.headers["authorization"] == "Bearer t"
    monkeypatch.delenv("OPD_API_TOKEN")
    monkeypatch.setenv("OPD_HOME", str(tmp_path))
    (tmp_path / "token").write_text("from-file\n")
    with Client() as client:
        assert client._http.headers["authorization"] == "Bearer from-file"


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a\\b"])
def test_a_listed_file_never_leaves_the_directory(client, tmp_path, name):
    from api.schemas import CheckpointFile

    file = CheckpointFile(id="file_x", name=name, size=1, sha256="0" * 64)
    with pytest.raises(OSError, match="outside"):
        client._download("job_x", "ckpt_x", file, tmp_path / "got")


def test_a_damaged_download_is_not_kept(client, services, tmp_path):
    job = client.submit(SPEC)
    services.store.claim(job.id, "w1", 30)
    files = services.files(job.id)
    checkpoint = publish(files, services.store, job.id, tmp_path)
    files.write_bytes("checkpoints/step-000001.a1/sub/a b.json", b"[]")
    with pytest.raises(OSError, match="damaged"):
        client.download(job.id, checkpoint.id, tmp_path / "got")
    assert not (tmp_path / "got" / "sub" / "a b.json").exists()
    assert list((tmp_path / "got").rglob("*.part")) == []
