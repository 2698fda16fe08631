"""A run as one HTML file: what it holds, what it leaves out, and that no text of a run can become anything else."""

import base64
import hashlib
import json
import re

import pyarrow as pa
import pytest

from api.export import sequences
from api.export.page import policy, render
from api.recorded import Records
from opd_core.recipes import resolve
from opd_core.runs import parts, records
from opd_core.spec import JobSpec
from tests.api.conftest import SPEC
from tests.api.test_jobs import problem_of
from tests.runs.test_records import row

HOSTILE = "</script><img src=x onerror=alert(1)><!--\u2028\u202e\ud800"


def data_of(content: bytes) -> dict:
    """The JSON that the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', content.decode(), re.DOTALL)
    return json.loads(found[1])


@pytest.fixture
def run(http, job_id, store, services):
    """A run that succeeded: metrics, three recorded steps, a report. (job id, its files)"""
    store.claim(job_id, "w1", 30)
    files = services.files(job_id)
    files.write_json("vocabulary.json", ["<pad>", "one", HOSTILE])
    for step in range(1, 31):
        store.add_metrics(job_id, 1, step, {"loss": 1 / 3, "flops": 1e9 * step, "wall_s": step / 2})
    rows = [row(step, n) | {"prompt": HOSTILE} for step in (1, 2, 3, 4) for n in range(3)]
    rows[5]["log_ratio"] = [-1.0, -2.0, -3.0]  # the teacher objects: its probed state counts for the routing
    records.write_part(files, rows, 1, 4, 1)
    store.set_accuracy(job_id, 1, {"before": 0.25, "after": 0.75, "teacher": 1.0, "gap_recovered": 2 / 3})
    store.add_event(job_id, "warning", "health", HOSTILE, attempt=1)
    report = {"budget": {"flops": 3e10, "wall_s_by_phase": {"update": 4.0}}, "checklist": {"data": {"problems": 3}}}
    store.finish(job_id, 1, "succeeded", report=report)
    return job_id, files


def exported(http, job_id):
    answer = http.get(f"/v1/jobs/{job_id}/export")
    assert answer.status_code == 200, answer.text
    return answer


def test_the_file_holds_the_run(http, run):
    job_id, _ = run
    answer = exported(http, job_id)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="opd-{job_id}.html"'
    found = data_of(answer.content)
    assert found["job"]["name"] == "a job"
    assert found["job"]["accuracy"]["after"] == 0.75
    assert found["recipe"]["citation"].startswith("GKD")
    assert found["budget"]["wall_s_by_phase"] == {"update": 4.0}
    assert found["checklist"] == {"data": {"problems": 3}}
    assert found["metrics"]["series"]["loss"][0] == 0.333333
    assert found["health"][0]["sentence"].startswith("</script>")
    assert (found["routing"]["states"], found["routing"]["realised"]) == (1, [[0.5, -0.5]])
    assert [one["type"] for one in found["events"]][-1] == "finished"
    assert found["attempts"][0]["worker"] == "w1"


def test_the_tokens_of_the_first_the_middle_and_the_last_step(http, run):
    job_id, _ = run
    found = data_of(exported(http, job_id).content)["records"]
    assert [(one["step"], one["recorded"], len(one["sequences"])) for one in found["steps"]] == [
        *((1, 3, 3), (3, 3, 3), (4, 3, 3))
    ]
    sequence = found["steps"][0]["sequences"][1]
    served = http.get(f"/v1/jobs/{job_id}/steps/1/sequences/1").json()
    assert {key: sequence[key] for key in ("step", "n", "problem", "prompt", "completion", "truncated", "length")} == {
        key: served[key] for key in ("step", "n", "problem", "prompt", "completion", "truncated", "length")
    }
    for token, full in zip(sequence["tokens"], served["tokens"], strict=True):
        assert found["texts"][str(token["id"])] == full["text"]
        assert token["return"] == pytest.approx(full["return"], rel=1e-4)
        assert token["gates"] == pytest.approx(full["gates"], rel=1e-4)
        assert [entry[0] for entry in token["student_top"]] == [entry["id"] for entry in full["student_top"]]
        assert token["teacher_top"][0][2] == pytest.approx(full["teacher_top"][0]["student_logp"], rel=1e-4)
        assert (token["probe"] is None) == (full["probe"] is None)
    assert found["left_out"] == [
        "4 steps have recorded sequences; this file has the first, the middle and the last of them"
    ]


def test_no_text_of_the_run_can_end_the_data(http, run):
    page = exported(http, run[0]).content
    text = page.decode()
    assert text.count("</script>") == 2
    assert "<img" not in text
    assert "\u2028" not in text
    prompt = data_of(page)["records"]["steps"][0]["sequences"][0]["prompt"]
    assert prompt == HOSTILE.replace("\ud800", "\ufffd")  # where it is stored, lone surrogates are gone


def test_lone_surrogates_stay_escaped():
    assert data_of(render({"text": HOSTILE}))["text"] == HOSTILE


def test_the_policy_allows_this_style_and_this_script_alone(http, run):
    answer = exported(http, run[0])
    text = answer.text
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    for source, directive in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy()
    assert "default-src 'none'" in policy()
    assert f'content="{policy()}"' in text
    assert answer.headers["content-security-policy"].startswith(policy())
    assert "unsafe" not in answer.headers["content-security-policy"]
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"):
        assert word not in script.replace("http://www.w3.org/2000/svg", "")


def test_a_large_run_says_what_is_left_out(http, run, store, services):
    job_id, _ = run
    recorded = Records(store.get_job(job_id), services)
    whole = sequences.collect(recorded, services.vocabulary(job_id))
    one = len(json.dumps(whole["steps"][0]["sequences"][0]))
    some = sequences.collect(recorded, services.vocabulary(job_id), max_bytes=int(4.5 * one))
    assert [len(step["sequences"]) for step in some["steps"]] == [2, 1, 1]  # one of each step in turn
    assert some["left_out"][:3] == [
        "step 1: 1 of 3 recorded sequences are not in this file",
        "step 3: 2 of 3 recorded sequences are not in this file",
        "step 4: 2 of 3 recorded sequences are not in this file",
    ]
    assert set(some["texts"]) <= set(whole["texts"])


def test_a_long_sequence_is_cut_and_says_so(http, run, store, services, monkeypatch):
    job_id, _ = run
    monkeypatch.setattr(sequences, "MAX_TOKENS", 2)
    found = sequences.collect(Records(store.get_job(job_id), services), services.vocabulary(job_id))
    sequence = found["steps"][0]["sequences"][0]
    assert (len(sequence["tokens"]), sequence["length"]) == (2, 3)
    assert "step 1, sequence 0: the first 2 of 3 tokens are here" in found["left_out"]


def test_records_from_before_gates_values_and_replans_are_exported(http, run):
    job_id, files = run
    old = pa.Table.from_pylist([row(9)], schema=records._EARLIER[-1])
    parts.write(files, records.part_name(9, 9, 1), [old], old.schema)
    last = data_of(exported(http, job_id).content)["records"]["steps"][-1]
    token = last["sequences"][0]["tokens"][0]
    assert (last["step"], token["value"], token["gates"], token["components"]) == (9, None, {}, {})
    assert token["log_ratio"] is not None


def test_a_job_that_has_not_begun_is_exported_as_it_stands(http, job_id):
    found = data_of(exported(http, job_id).content)
    assert (found["job"]["status"], found["metrics"]["steps"], found["routing"]) == ("queued", [], None)
    assert found["records"] == {"steps": [], "texts": {}, "left_out": []}
    assert found["checklist"] is None


def test_a_recipe_that_is_gone_does_not_stop_the_export(http, store):
    spec = resolve(JobSpec.model_validate(SPEC))
    job = store.create_job(spec, spec.model_copy(update={"recipe": "gone"}))
    old = store.create_job(spec.model_copy(update={"recipe": "gone"}), spec)
    assert data_of(exported(http, old.id).content)["recipe"] is None
    assert data_of(exported(http, job.id).content)["recipe"]["name"] == "forward-kl"


def test_a_very_long_run_stays_small(http, job_id, store):
    store.claim(job_id, "w1", 30)
    for step in range(2500):
        store.add_metrics(job_id, 1, step, {"accuracy": 0.5})
    steps = data_of(exported(http, job_id).content)["metrics"]["steps"]
    assert len(steps) <= 2000
    assert steps[-1] == 2499


def test_an_unknown_job_is_not_exported(http):
    assert problem_of(http.get("/v1/jobs/job_nope/export"), 404)["param"] == "job_id"


def test_the_typed_client_exports(client, http, run):
    assert data_of(client.export(run[0]))["job"]["id"] == run[0]
