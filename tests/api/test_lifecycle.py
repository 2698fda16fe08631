"""What can be done with a job over HTTP: pause, resume, save now, rename, fork, delete; its logs; the fleet."""

import redis

from opd_core.runs.live import live_key, steps_key, tokens_key
from opd_core.spec import JobSpec, MethodSpec
from tests.api.conftest import SPEC
from tests.api.test_jobs import problem_of, queued
from tests.api.test_telemetry import publish


def test_pause_and_resume_are_idempotent_and_announced(http, job_id, store, broker):
    store.claim(job_id, "w1", 30)
    for _ in range(2):
        response = http.post(f"/v1/jobs/{job_id}/pause")
        assert response.status_code == 202
        assert (response.json()["status"], response.json()["desired_state"]) == ("pausing", "pause")
    store.requeue(job_id, 1, crashed=False)
    assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "paused"
    redis.Redis.from_url(broker.url).flushall()
    for _ in range(2):
        response = http.post(f"/v1/jobs/{job_id}/resume")
        assert response.status_code == 202
        assert (response.json()["status"], response.json()["desired_state"]) == ("queued", "run")
    assert queued(broker) == [job_id]  # rung once
    assert store.due(30) == []


def test_a_resume_with_the_broker_away_is_announced_later(http, job_id, store, broker):
    http.post(f"/v1/jobs/{job_id}/pause")
    broker.stop()
    assert http.post(f"/v1/jobs/{job_id}/resume").status_code == 202
    assert store.due(30) == [(job_id, "cpu")]


def test_an_impossible_wish_says_what_is_possible(http, job_id, store):
    claim = store.claim(job_id, "w1", 30)
    store.set_phase(job_id, claim.attempt, "finalizing", "finalizing")
    body = problem_of(http.post(f"/v1/jobs/{job_id}/pause"), 409)
    assert body["type"] == "urn:opd:problem:invalid_transition"
    assert "succeeded" in body["allowed"]
    assert "cancelling" in problem_of(http.delete(f"/v1/jobs/{job_id}"), 409)["allowed"]
    store.finish(job_id, claim.attempt, "succeeded", report={})
    for verb in ("pause", "resume", "checkpoints"):
        problem_of(http.post(f"/v1/jobs/{job_id}/{verb}"), 409)


def test_a_checkpoint_can_be_asked_for_while_the_job_trains(http, job_id, store):
    assert "queued has nothing to save" in problem_of(http.post(f"/v1/jobs/{job_id}/checkpoints"), 409)["detail"]
    store.claim(job_id, "w1", 30)
    for _ in range(2):
        response = http.post(f"/v1/jobs/{job_id}/checkpoints")
        assert (response.status_code, response.json()["save_wanted"]) == (202, True)


def test_name_and_metadata_can_be_changed_and_nothing_else(http, job_id):
    change = {"name": "a better name", "metadata": {"team": "red"}}
    changed = http.patch(f"/v1/jobs/{job_id}", json=change).json()
    assert (changed["name"], changed["metadata"]) == ("a better name", {"team": "red"})
    assert changed["spec"]["name"] == "a job"
    assert http.patch(f"/v1/jobs/{job_id}", json={"metadata": {}}).json()["name"] == "a better name"
    for bad, param in (({"seed": 3}, "seed"), ({"name": "<b>"}, "name"), ({"metadata": {"a b": "c"}}, "metadata")):
        assert problem_of(http.patch(f"/v1/jobs/{job_id}", json=bad), 422)["param"].startswith(param)


def test_delete_takes_records_files_and_streams(http, run, store, services, live, tmp_path, broker):
    job_id, files = run
    publish(files, store, job_id, tmp_path)
    live.publish(job_id, "progress", {"step": 1})
    problem_of(http.delete(f"/v1/jobs/{job_id}"), 409)
    assert files.exists("vocabulary.json")
    store.finish(job_id, 1, "failed")
    response = http.delete(f"/v1/jobs/{job_id}")
    assert (response.status_code, response.content) == (204, b"")
    problem_of(http.get(f"/v1/jobs/{job_id}"), 404)
    problem_of(http.delete(f"/v1/jobs/{job_id}"), 404)
    assert files.list() == []
    client = redis.Redis.from_url(broker.url)
    assert client.exists(live_key(job_id), tokens_key(job_id), steps_key(job_id)) == 0


def test_delete_works_without_a_broker(http, run, store, broker):
    job_id, files = run
    store.finish(job_id, 1, "failed")
    broker.stop()
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert files.list() == []


def test_a_fork_has_its_own_copy_of_the_student(http, run, store, services, tmp_path):
    job_id, files = run
    saved = publish(files, store, job_id, tmp_path, "student", "export")
    spec = {**SPEC, "name": "second half", "from": {"job": job_id}}
    checked = http.post("/v1/jobs?validate_only=true", json=spec).json()
    assert checked["resolved_spec"]["from"] == {"job": job_id, "checkpoint": saved.id}
    fork = http.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"}).json()
    assert fork["spec"]["from"] == {"job": job_id, "checkpoint": None}
    assert fork["resolved_spec"]["from"] == {"job": job_id, "checkpoint": saved.id}
    again = http.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})
    assert again.json()["id"] == fork["id"]
    store.finish(job_id, 1, "failed")
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    manifest = services.files(fork["id"]).fetch("start", tmp_path / "got")
    assert {file["name"] for file in manifest["files"]} == {file["name"] for file in saved.files}
    assert len(list((tmp_path / "home" / "artifacts" / "jobs").iterdir())) == 1


def test_a_fork_that_cannot_start_is_refused_by_field(http, run, store, tmp_path):
    job_id, files = run

    def refused(start, **sections):
        return problem_of(http.post("/v1/jobs", json={**SPEC, "from": start, **sections}), 422)

    assert "has no checkpoint yet" in refused({"job": job_id})["detail"]
    saved = publish(files, store, job_id, tmp_path)
    assert refused({"job": "job_01m837yra7fgfac0fh2b4qwbpp"})["param"] == "from.job"
    assert refused({"job": "../etc"})["param"] == "from.job"
    unknown = refused({"job": job_id, "checkpoint": "ckpt_x"})
    assert (unknown["param"], saved.id in unknown["detail"]) == ("from.checkpoint", True)
    other = refused({"job": job_id}, student={"model": "someone/else"})
    assert (other["param"], "demo/student" in other["detail"]) == ("student.model", True)
    files.remove(f"checkpoints/{saved.name}")
    assert "no longer stored" in refused({"job": job_id, "checkpoint": saved.id})["detail"]
    assert len(http.get("/v1/jobs").json()["data"]) == 1


def test_logs_are_plain_text_by_attempt(http, run, store):
    job_id, files = run
    assert problem_of(http.get(f"/v1/jobs/{job_id}/logs"), 404)["param"] == "attempt"
    files.write_bytes("logs/attempt-1.log", b"one\ntwo\n<b>three</b>\n")
    response = http.get(f"/v1/jobs/{job_id}/logs")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == "one\ntwo\n<b>three</b>\n"
    assert http.get(f"/v1/jobs/{job_id}/logs?attempt=1&tail=2").text == "two\n<b>three</b>\n"
    problem_of(http.get(f"/v1/jobs/{job_id}/logs?attempt=2"), 404)
    problem_of(http.get(f"/v1/jobs/{job_id}/logs?attempt=0"), 422)


def test_the_fleet(http, job_id, store):
    http.post("/v1/jobs", json={**SPEC, "resources": {"queue": "gpu"}})
    store.claim(job_id, "w1", 30)
    store.heartbeat_worker("w1", "h", ["cpu", "aside"], 1, job_id=job_id)
    rows = http.get("/v1/queues").json()["data"]
    assert [(row["name"], row["waiting"], row["running"], row["workers"]) for row in rows] == [
        ("aside", 0, 0, 1),
        ("cpu", 0, 1, 1),
        ("gpu", 1, 0, 0),
    ]
    (worker,) = http.get("/v1/workers").json()["data"]
    assert 20 < worker["lease_left_s"] <= 30
    store.finish_attempt(job_id, 1, signal=9, reason="killed by SIGKILL")
    store.requeue(job_id, 1, crashed=True)
    store.claim(job_id, "w1", 30)
    (failed,) = http.get("/v1/attempts?failed=true").json()["data"]
    assert (failed["job_id"], failed["attempt"], failed["reason"]) == (job_id, 1, "killed by SIGKILL")
    assert len(http.get("/v1/attempts").json()["data"]) == 2


def test_the_schema_describes_every_field(http):
    schema = http.get("/v1/schema").json()
    assert set(schema["job"]["properties"]) == {field.alias or name for name, field in JobSpec.model_fields.items()}
    assert set(schema["method"]["properties"]) == set(MethodSpec.model_fields)


def test_the_client_speaks_of_the_lifecycle(client, store, services, tmp_path):
    job = client.submit(SPEC)
    assert client.pause(job.id).status == "paused"
    assert client.resume(job.id).status == "queued"
    store.claim(job.id, "w1", 30)
    assert client.save(job.id).save_wanted
    assert client.update(job.id, name="x", metadata={"a": "b"}).metadata == {"a": "b"}
    saved = publish(services.files(job.id), store, job.id, tmp_path, "student", "export")
    fork = client.fork(job.id, saved.id, name="fork")
    assert (fork.name, fork.spec["from"]) == ("fork", {"job": job.id, "checkpoint": saved.id})
    services.files(job.id).write_bytes("logs/attempt-1.log", b"a\nb\n")
    assert client.log(job.id, tail=1) == "b\n"
    assert [queue.name for queue in client.queues().data] == ["cpu"]
    assert client.recent_attempts(failed=True).data == []
    assert "recipe" in client.schema().job["properties"]
    client.cancel(fork.id)
    client.delete(fork.id)
    assert [one.id for one in client.jobs().data] == [job.id]


def test_priority_is_the_most_urgent_first_and_changes_while_the_job_waits(http, job_id, store):
    changed = http.patch(f"/v1/jobs/{job_id}", json={"priority": 7}).json()
    assert (changed["priority"], changed["spec"]["priority"]) == (7, 0)
    out_of_range = problem_of(http.patch(f"/v1/jobs/{job_id}", json={"priority": 11}), 422)
    assert "priority" in out_of_range["param"]
    store.claim(job_id, "w1", 30)
    assert "queued or paused" in problem_of(http.patch(f"/v1/jobs/{job_id}", json={"priority": 1}), 409)["detail"]
    assert http.get(f"/v1/jobs/{job_id}").json()["priority"] == 7
