import json
import os
import subprocess
import sys
import threading
from base64 import b64decode

import redis
from fastapi.testclient import TestClient

from api.main import create_app
from api.reconciler import reconcile
from api.services import Services
from opd_core.recipes import resolve
from opd_core.runs.queue import TASK_NAME
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec
from tests.api.conftest import SPEC, TOKEN
from tests.waiting import wait_until


def problem_of(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:opd:problem:")
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def queued(broker, queue="cpu"):
    """Job ids of the messages that wait in a queue."""
    messages = redis.Redis.from_url(broker.url).lrange(f"opd:{queue}", 0, -1)
    envelopes = [json.loads(message) for message in messages]
    assert all(envelope["headers"]["task"] == TASK_NAME for envelope in envelopes)
    return [json.loads(b64decode(envelope["body"]))[0][0] for envelope in envelopes][::-1]


# --- create ---------------------------------------------------------------------------------------------------------


def test_a_job_is_created_stored_and_announced(http, broker, store):
    response = http.post("/v1/jobs", json={**SPEC, "metadata": {"team": "red"}, "resources": {"queue": "gpu-80g"}})
    assert response.status_code == 201
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["object"] == "job"
    assert job["status"] == "queued"
    assert job["metadata"] == {"team": "red"}
    assert job["spec"]["method"] == {}
    assert job["resolved_spec"]["method"]["objective"]["divergence"] == "forward_kl"
    assert job["created_at"].endswith("Z")
    assert job["progress"]["step"] is None
    assert job["accuracy"]["gap_recovered"] is None
    assert http.get(response.headers["location"]).json() == job
    assert queued(broker, "gpu-80g") == [job["id"]]
    assert store.due(30) == []


def test_curl_calls_its_json_a_form(http):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post("/v1/jobs", content=json.dumps(SPEC), headers=headers).status_code == 201


def test_validate_only_resolves_and_creates_nothing(http):
    spec = {**SPEC, "recipe": "gkd", "method": {"objective": {"beta": 1.0}}}
    response = http.post("/v1/jobs?validate_only=true", json=spec)
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "validation"
    assert body["resolved_spec"]["method"]["objective"] == {
        "route": "direct",
        "divergence": "jsd",
        "beta": 1.0,
        "alpha": 0.1,
        "order": 0.5,
        "temperature": 1.0,
        "teacher_temperature": None,
        "target": {"kind": "teacher"},
    }
    assert "reverse_kl" in body["warnings"][0]
    assert http.get("/v1/jobs").json()["data"] == []
    assert http.post("/v1/jobs", json=spec).json()["warnings"] == body["warnings"]


def test_a_bad_spec_is_refused_with_the_field(http):
    cases = [
        ({**SPEC, "optimizer": {"lr": -1.0}}, "optimizer.lr"),
        ({**SPEC, "optimiser": {}}, "optimiser"),
        ({**SPEC, "method": {"objective": {"beta": 3}}}, "method.objective.beta"),
        ({**SPEC, "recipe": "nope"}, "recipe"),
        ({key: value for key, value in SPEC.items() if key != "student"}, "student"),
        ([], "body"),
    ]
    for spec, param in cases:
        body = problem_of(http.post("/v1/jobs", json=spec), 422)
        assert body["param"] == param
        assert param in body["detail"]
    assert "there is no such field" in problem_of(http.post("/v1/jobs", json=cases[1][0]), 422)["detail"]
    assert http.get("/v1/jobs").json()["data"] == []


def test_models_and_data_come_from_allowed_directories_only(http, tmp_path, settings):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()

    def submit(student="demo/student", task=SPEC["task"]):
        return http.post("/v1/jobs", json={**SPEC, "student": {"model": str(student)}, "task": task})

    assert submit(tmp_path / "models" / "mine").status_code == 201
    assert submit("org/model").status_code == 201
    for bad in (tmp_path / "elsewhere", tmp_path / "models" / "link", tmp_path / "models-not"):
        body = problem_of(submit(bad), 422)
        assert body["param"] == "student.model"
        assert body["type"].endswith(":path_not_allowed")
        assert "OPD_MODEL_ROOTS" in body["detail"]
    assert submit(task={"dataset": str(tmp_path / "data" / "x.jsonl")}).status_code == 201
    for bad in ("/etc/passwd", "x.jsonl", str(tmp_path / "data" / ".." / "x.jsonl"), "/x\x00"):
        body = problem_of(submit(task={"dataset": bad}), 422)
        assert body["param"] == "task.dataset"
        assert "OPD_DATA_ROOTS" in body["detail"]
    both = {"dataset": str(tmp_path / "data" / "x.jsonl"), "eval_dataset": "/etc/passwd"}
    assert problem_of(submit(task=both), 422)["param"] == "task.eval_dataset"


def test_without_a_broker_the_job_is_kept_and_announced_later(http, broker, store, services):
    broker.stop()
    response = http.post("/v1/jobs", json=SPEC)
    assert response.status_code == 201
    job_id = response.json()["id"]
    assert [event.type for event in store.list_events(job_id)[0]] == ["created", "bell_failed"]
    assert reconcile(store, services.bell, 30) == 0
    broker.start()
    assert reconcile(store, services.bell, 30) == 1
    assert queued(broker) == [job_id]
    assert reconcile(store, services.bell, 30) == 0


# --- idempotency ----------------------------------------------------------------------------------------------------


def test_a_repeated_submission_makes_one_job(http, broker):
    headers = {"Idempotency-Key": "k-1"}
    first = http.post("/v1/jobs", json=SPEC, headers=headers)
    again = http.post("/v1/jobs", json=SPEC, headers=headers)
    assert again.status_code == 201
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert queued(broker) == [first.json()["id"]]


def test_a_key_is_for_one_request(http):
    headers = {"Idempotency-Key": "k-1"}
    http.post("/v1/jobs", json=SPEC, headers=headers)
    body = problem_of(http.post("/v1/jobs", json={**SPEC, "seed": 1}, headers=headers), 422)
    assert body["param"] == "Idempotency-Key"
    assert problem_of(http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "a b"}), 422)
    # Looking does not use a key up.
    http.post("/v1/jobs?validate_only=true", json=SPEC, headers={"Idempotency-Key": "k-2"})
    assert http.post("/v1/jobs", json={**SPEC, "seed": 2}, headers={"Idempotency-Key": "k-2"}).status_code == 201


# --- read -----------------------------------------------------------------------------------------------------------


def test_pages_of_jobs(http):
    ids = [http.post("/v1/jobs", json={**SPEC, "name": f"job {n}"}).json()["id"] for n in range(3)]
    page = http.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in page["data"]] == ids[:0:-1]
    assert page["has_more"] is True
    rest = http.get("/v1/jobs", params={"limit": 2, "after": page["next_cursor"]}).json()
    assert [job["id"] for job in rest["data"]] == ids[:1]
    assert (rest["has_more"], rest["next_cursor"]) == (False, None)
    http.post(f"/v1/jobs/{ids[0]}/cancel")
    assert [job["id"] for job in http.get("/v1/jobs?status=cancelled").json()["data"]] == ids[:1]
    assert [job["id"] for job in http.get("/v1/jobs?name=job 1").json()["data"]] == ids[1:2]
    for bad, param in (("limit=0", "limit"), ("limit=101", "limit"), ("after=x", "after"), ("status=odd", "status")):
        assert problem_of(http.get(f"/v1/jobs?{bad}"), 422)["param"] == param


def test_polling_with_an_etag(http, job_id, store):
    first = http.get(f"/v1/jobs/{job_id}")
    etag = first.headers["etag"]
    same = http.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": f'"other", W/{etag}'})
    assert same.status_code == 304
    assert same.content == b""
    assert same.headers["etag"] == etag
    store.claim(job_id, "w1", 30)
    changed = http.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag
    assert changed.json()["worker"] == "w1"


def test_unknown_jobs_are_404_everywhere(http, job_id):
    other = job_id[:-1] + ("0" if job_id[-1] != "0" else "1")
    paths = [
        "",
        "/events",
        "/stream",
        "/metrics",
        "/steps",
        "/steps/1/sequences",
        "/steps/1/sequences/0",
        "/heatmaps/routing",
        "/checkpoints",
        "/attempts",
        "/report",
        "/evaluation",
    ]
    for name in (other, "nope", "..%2f..%2fetc"):
        for path in paths:
            problem_of(http.get(f"/v1/jobs/{name}{path}"), 404)
        problem_of(http.post(f"/v1/jobs/{name}/cancel"), 404)


def test_jobs_are_found_by_their_metadata(http):
    def make(**metadata):
        return http.post("/v1/jobs", json={**SPEC, "metadata": metadata}).json()["id"]

    def found(query):
        return [job["id"] for job in http.get(f"/v1/jobs?{query}").json()["data"]]

    red, both, blue = make(team="red"), make(team="red", seed="1"), make(team="blue", seed="1")
    assert found("metadata[team]=red") == [both, red]
    assert found("metadata[team]=red&metadata[seed]=1") == [both]
    assert found("metadata[seed]=1&status=queued") == [blue, both]
    assert found("metadata[team]=green") == found("metadata[red]=team") == []
    assert found(f"metadata[team]=red&after={both}") == [red]
    assert found("metadata[team]=red&limit=1") == [both]
    http.patch(f"/v1/jobs/{red}", json={"metadata": {"team": "blue"}})
    assert found("metadata[team]=red") == [both]
    assert found("metadata[team]=blue") == [blue, red]
    http.post(f"/v1/jobs/{blue}/cancel")
    assert http.delete(f"/v1/jobs/{blue}").status_code == 204
    assert found("metadata[team]=blue") == [red]
    for bad in ("metadata=x", "metadata[]=x", "metadata[a b]=x", "metadata[a]=" + "x" * 257):
        assert problem_of(http.get(f"/v1/jobs?{bad}"), 422)["param"] == "metadata"


def test_events_in_order_and_in_pages(http, job_id, store):
    for n in range(3):
        store.add_event(job_id, "warning", "note", f"note {n}", {"n": n})
    page = http.get(f"/v1/jobs/{job_id}/events?limit=2").json()
    assert [event["seq"] for event in page["data"]] == [1, 2]
    assert page["data"][0]["type"] == "created"
    rest = http.get(f"/v1/jobs/{job_id}/events?after={page['next_cursor']}").json()
    assert [event["message"] for event in rest["data"]] == ["note 1", "note 2"]
    assert rest["has_more"] is False


# --- cancel ---------------------------------------------------------------------------------------------------------


def test_cancel_is_idempotent_and_final(http, job_id, store):
    claim = store.claim(job_id, "w1", 30)
    for _ in range(2):
        response = http.post(f"/v1/jobs/{job_id}/cancel")
        assert response.status_code == 202
        assert response.json()["status"] == "cancelling"
        assert response.json()["desired_state"] == "cancelled"
    store.finish(job_id, claim.attempt, "cancelled")
    assert http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    attempts = http.get(f"/v1/jobs/{job_id}/attempts").json()["data"]
    assert [(row["attempt"], row["worker"], row["reason"]) for row in attempts] == [(1, "w1", "cancelled")]


def test_an_ended_job_cannot_be_cancelled(http, job_id, store):
    claim = store.claim(job_id, "w1", 30)
    error = {"code": "missing_column", "message": "no column", "param": "task.prompt_column", "category": "user"}
    store.finish(job_id, claim.attempt, "failed", error)
    body = problem_of(http.post(f"/v1/jobs/{job_id}/cancel"), 409)
    assert body["allowed"] == []
    assert body["type"] == "urn:opd:problem:invalid_transition"
    assert http.get(f"/v1/jobs/{job_id}").json()["error"] == {**error, "retryable": False}


def test_the_reconciler_runs_inside_the_service(settings, broker):
    own = settings.model_copy(update={"reconcile": True, "reconcile_every_s": 0.02})
    app = create_app(own)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        job_id = http.post("/v1/jobs", json=SPEC).json()["id"]
        store = app.state.services.store
        store.claim(job_id, "w1", -1)
        wait_until(
            lambda: store.get_job(job_id).status == "queued" and len(queued(broker)) >= 2,
            "the lost job was not taken back and announced",
            60,
        )
    assert "reconciler" not in [thread.name for thread in threading.enumerate()]


def test_the_reconciler_outlives_an_error_that_nobody_foresaw(settings, broker, monkeypatch):
    app = create_app(settings.model_copy(update={"reconcile": True, "reconcile_every_s": 0.02}))
    store, due, rounds = app.state.services.store, app.state.services.store.due, []

    def broken_at_first(*arguments):
        rounds.append(arguments)
        if len(rounds) == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return due(*arguments)

    monkeypatch.setattr(store, "due", broken_at_first)
    with TestClient(app):
        wait_until(lambda: len(rounds) >= 3, "nobody looks for lost jobs any more", 60)


def test_the_reconciler_runs_alone_and_stops_when_told(tmp_path, broker):
    environment = {**os.environ, "OPD_HOME": str(tmp_path), "OPD_REDIS_URL": broker.url}
    store = Services(Settings(home=tmp_path, redis_url=broker.url, database_url="")).store
    spec = JobSpec.model_validate(SPEC)
    job = store.create_job(spec, resolve(spec), [])
    process = subprocess.Popen([sys.executable, "-m", "api.reconciler"], env=environment)
    try:
        wait_until(lambda: queued(broker) == [job.id], "the bell was not rung", 60)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
