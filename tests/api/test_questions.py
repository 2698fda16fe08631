"""What-if and probe questions over HTTP: asked, checked, answered from what a worker left in the run directory."""

from __future__ import annotations

import pytest

from api.reconciler import reconcile_questions
from opd_core import recipes
from opd_core.runs import records
from opd_core.runs.questions import MAX_OPEN, answer_file, material_file
from tests.runs.test_records import row

STEP = 3


@pytest.fixture
def files(services, job_id):
    """The run directory with two recorded sequences of step 3 and a vocabulary."""
    files = services.files(job_id)
    records.write_part(files, [row(STEP, 0), row(STEP, 1)], STEP, STEP, 1)
    files.write_json("vocabulary.json", ["<pad>", "Ann", "has"])
    return files


def replanned(one):
    """What a worker writes about a sequence."""
    length = one["length"]
    plan = {
        "log_ratio": one["log_ratio"],
        "returns": one["returns"],
        "values": None,
        "advantages": [9.0] * length,
        "gates": [0.5] * length,
        "gate_names": ["tip"],
        "gate_weights": [[0.5]] * length,
        "coefficients": [2.0] * length,
        "component_names": ["return"],
        "component_values": [[2.0]] * length,
        "route_ids": [[1]] * length,
        "route_weights": [[0.25]] * length,
    }
    numbers = {name: [[0.5, 0.25, 0.0]] * length for name in ("force_recorded", "force_replanned")}
    changes = {name: [[0.1, -0.1, 0.0]] * length for name in ("change_recorded", "change_replanned")}
    return {"recorded": one, "plan": plan, "force_ids": [[2, 1, -1]] * length, **numbers, **changes}


def ask(http, job_id, **body):
    return http.post(f"/v1/jobs/{job_id}/steps/{STEP}/replan", json=body)


def test_a_what_if_is_accepted_with_its_method_complete_and_its_records_kept(http, services, job_id, files):
    answer = ask(http, job_id, recipe="cr-opd", method={"routing": {"strength": 0.5}}, sequences=[1])
    assert answer.status_code == 202, answer.text
    question = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job_id}/questions/{question['id']}"
    assert (question["status"], question["kind"], question["result"]) == ("waiting", "replan", None)
    method = recipes.adapt("cr-opd", {"routing": {"strength": 0.5}}).model_dump(mode="json")
    assert question["request"] == {"step": STEP, "recipe": "cr-opd", "method": method, "sequences": [1]}
    kept = records.decode(files.read_bytes(material_file(question["id"])))
    assert [one["n"] for one in kept] == [0, 1]
    assert http.get(answer.headers["Location"]).json() == question


def test_without_a_recipe_the_changes_are_those_of_the_runs_own_method(http, job_id, files):
    method = ask(http, job_id, method={"objective": {"divergence": "jsd"}}).json()["request"]["method"]
    assert method == recipes.adapt("forward-kl", {"objective": {"divergence": "jsd"}}).model_dump(mode="json")
    assert ask(http, job_id).json()["request"]["sequences"] == [0, 1]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"recipe": "no-such"}, "recipe"),
        ({"recipe": "cr-opd", "method": {"routing": {"strength": 2}}}, "method.routing.strength"),
        ({"method": {"credit": {"estimator": "gae"}}}, "method"),
        ({"recipe": "kdrl"}, "rollout.samples_per_prompt"),
        ({"sequences": [7]}, "sequences"),
        ({"sequences": []}, "sequences"),
        ({"sequences": list(range(17))}, "sequences"),
        ({"step": 3}, "step"),
    ],
)
def test_a_method_is_checked_like_that_of_a_job(http, job_id, files, body, param):
    answer = ask(http, job_id, **body)
    assert answer.status_code == 422
    assert answer.json()["param"] == param
    assert answer.json()["detail"].startswith(param.split(".")[0])


def test_a_step_without_records_is_not_found(http, job_id, files):
    assert http.post(f"/v1/jobs/{job_id}/steps/9/replan", json={}).status_code == 404
    assert http.post(f"/v1/jobs/job_{'0' * 26}/steps/3/replan", json={}).status_code == 404


def test_the_answer_shows_both_plans_their_difference_and_the_marks(http, services, job_id, files):
    question = ask(http, job_id, recipe="tip", sequences=[0]).json()
    services.questions.claim(question["id"], 30)
    why = {"gate": ["a statistic of the whole batch"], "coefficient": []}
    answer = {"rows": [replanned(row(STEP, 0))], "replanned": why, "recorded": {"force": []}}
    files.write_json(answer_file(question["id"]), answer)
    services.questions.finish(question["id"], 1)
    found = http.get(f"/v1/jobs/{job_id}/questions/{question['id']}").json()
    assert found["status"] == "answered"
    result = found["result"]
    assert (result["object"], result["step"], result["recipe"]) == ("replan", STEP, "tip")
    assert result["marks"]["gate"] == {"exact": False, "reasons": ["a statistic of the whole batch"]}
    assert result["marks"]["coefficient"] == {"exact": True, "reasons": []}
    (sequence,) = result["sequences"]
    before, after = sequence["recorded"]["tokens"][0], sequence["replanned"]["tokens"][0]
    assert (after["advantage"], after["gates"], after["coefficient"]) == (9.0, {"tip": 0.5}, 2.0)
    assert before["gates"] == {"tip": 1.0, "window": 0.5}
    assert before["student_top"]
    assert after["student_top"] == []
    assert after["route"] == [{"id": 1, "text": "Ann", "weight": 0.25}]
    difference = sequence["difference"][0]
    assert difference["advantage"] == pytest.approx(9.0 - before["advantage"])
    assert (difference["value"], difference["return"]) == (None, 0.0)
    force = {"id": 2, "text": "has", "recorded": 0.5, "replanned": 0.5, "recorded_change": 0.1, "replanned_change": 0.1}
    assert sequence["forces"][0] == [force, force | {"id": 1, "text": "Ann", "recorded": 0.25, "replanned": 0.25}
                                     | {"recorded_change": -0.1, "replanned_change": -0.1}]  # fmt: skip


def probe(http, job_id, **body):
    return http.post(f"/v1/jobs/{job_id}/probe", json={"prompt": "Ann has 2 .", **body})


def test_a_probe_takes_the_runs_settings_and_shows_one_sequence(http, services, job_id, files):
    answer = probe(http, job_id, seed=5)
    assert answer.status_code == 202, answer.text
    question = answer.json()
    asked = {"prompt": "Ann has 2 .", "max_new_tokens": 48, "temperature": 1.0, "seed": 5, "checkpoint": None}
    assert question["request"] == asked
    services.questions.claim(question["id"], 30)
    row_ = {**row(0), "probe_ids": [None] * 3}
    answer = {"checkpoint": None, "step": 0, "row": row_, "approximate": {"gate": []}, "notes": ["a note"]}
    files.write_json(answer_file(question["id"]), answer)
    services.questions.finish(question["id"], 1)
    result = http.get(f"/v1/jobs/{job_id}/questions/{question['id']}").json()["result"]
    assert (result["object"], result["checkpoint"], result["notes"]) == ("probe", None, ["a note"])
    assert result["sequence"]["tokens"][1]["text"] == "Ann"
    assert result["sequence"]["tokens"][0]["probe"] is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 16_385}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"max_new_tokens": 1025}, "max_new_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"checkpoint": "../../etc"}, "checkpoint"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_cannot_be_probed_is_refused(http, job_id, files, body, param):
    answer = probe(http, job_id, **body)
    assert (answer.status_code, answer.json()["param"]) == (422, param)


def test_a_checkpoint_may_be_named_by_its_id(http, services, job_id, files):
    claim = services.store.claim(job_id, "w", 30)
    made = services.store.add_checkpoint(
        job_id, claim.attempt, name="step-000002.a1", step=2, kind="training", size_bytes=1, files=[]
    )
    del made
    (known,) = services.store.list_checkpoints(job_id)
    for name in (known.id, known.name):
        assert probe(http, job_id, checkpoint=name).json()["request"]["checkpoint"] == "step-000002.a1"


def test_a_failed_question_says_why_and_another_jobs_is_not_shown(http, services, job_id, files):
    question = probe(http, job_id).json()
    services.questions.claim(question["id"], 30)
    error = {
        "code": "unknown_words",
        "message": "prompt: no",
        "param": "prompt",
        "category": "user",
        "retryable": False,
    }
    services.questions.finish(question["id"], 1, error)
    found = http.get(f"/v1/jobs/{job_id}/questions/{question['id']}").json()
    assert (found["status"], found["error"]) == ("failed", error)
    other = http.post("/v1/jobs", json=services.store.get_job(job_id).spec).json()["id"]
    assert http.get(f"/v1/jobs/{other}/questions/{question['id']}").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}/questions/nonsense").status_code == 404


def test_a_crowd_is_asked_to_come_back(http, job_id, files):
    for _ in range(MAX_OPEN):
        assert probe(http, job_id).status_code == 202
    refused = ask(http, job_id)
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:opd:problem:too_many_questions")
    assert len([name for name in files.list("questions") if name.endswith(".arrow")]) == 0


def test_bells_are_rung_when_the_broker_is_back_and_old_answers_go(http, services, job_id, files, broker, monkeypatch):
    broker.stop()
    question = ask(http, job_id).json()
    assert question["status"] == "waiting"
    broker.start()
    assert reconcile_questions(services) == 1
    assert reconcile_questions(services) == 0
    services.questions.claim(question["id"], 30)
    services.questions.finish(question["id"], 1)
    monkeypatch.setattr("opd_core.runs.questions.KEPT_S", 0.0)
    old = services.questions.outdated(-1.0)
    monkeypatch.setattr(type(services.questions), "outdated", lambda self: old)
    reconcile_questions(services)
    assert services.questions.get(question["id"]) is None
    assert files.list("questions") == []


def test_the_client_asks_and_waits(client, services, job_id, files):
    asked = client.replan(job_id, STEP, recipe="cr-opd", sequences=[0])
    assert asked.status == "waiting"
    services.questions.claim(asked.id, 30)
    answer = {"rows": [replanned(row(STEP, 0))], "replanned": {}, "recorded": {}}
    files.write_json(answer_file(asked.id), answer)
    services.questions.finish(asked.id, 1)
    told = []
    done = client.answer(asked, timeout_s=60, poll_s=0.01, tell=told.append)
    assert done.result.sequences[0].replanned.tokens[0].coefficient == 2.0
    assert [question.status for question in told] == ["answered"]
    with pytest.raises(TimeoutError, match="still waiting"):
        client.answer(client.probe(job_id, "Ann"), timeout_s=0.05, poll_s=0.01)
