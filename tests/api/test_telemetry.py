"""Scalars, token records, heatmaps, checkpoints: what a run recorded, as a viewer sees it."""

import hashlib

import pytest

from opd_core.recipes import load
from opd_core.runs import records
from opd_core.tasks import demo_models
from opd_core.tasks.load import BUILT_IN
from tests.api.test_jobs import problem_of
from tests.quantities import quantities
from tests.runs.test_records import row


def test_scalars_come_as_columns_and_can_be_thinned(http, run, store):
    job_id, _ = run
    for step in range(1, 101):
        store.add_metrics(job_id, 1, step, {"loss": 1.0 / step} | ({"accuracy": 0.5} if step == 50 else {}))
    whole = http.get(f"/v1/jobs/{job_id}/metrics").json()
    assert whole["steps"] == list(range(1, 101))
    assert whole["series"]["loss"][3] == 0.25
    assert [value for value in whole["series"]["accuracy"] if value is not None] == [0.5]
    some = http.get(f"/v1/jobs/{job_id}/metrics?keys=accuracy,kl&from_step=11&max_points=9").json()
    assert some["steps"] == [11, 21, 31, 41, 50, 51, 61, 71, 81, 91, 100]
    assert set(some["series"]) == {"accuracy", "kl"}
    assert set(some["series"]["kl"]) == {None}
    assert problem_of(http.get(f"/v1/jobs/{job_id}/metrics?max_points=0"), 422)["param"] == "max_points"


def test_recorded_and_live_steps_are_one_list(http, run, live):
    job_id, files = run
    records.write_part(files, [row(step, n) for step in (1, 2) for n in (0, 1)], 1, 10, 1)
    live.publish_records(job_id, 3, 1, records.encode([row(3)]))
    steps = http.get(f"/v1/jobs/{job_id}/steps").json()["data"]
    assert steps == [
        {"step": 1, "sequences": 2, "tokens": 6},
        {"step": 2, "sequences": 2, "tokens": 6},
        {"step": 3, "sequences": 1, "tokens": None},  # not counted before it is at rest
    ]
    for step, count in ((1, 2), (3, 1)):
        found = http.get(f"/v1/jobs/{job_id}/steps/{step}/sequences").json()
        assert (found["step"], len(found["data"])) == (step, count)
    assert "no token records" in problem_of(http.get(f"/v1/jobs/{job_id}/steps/9/sequences"), 404)["detail"]
    assert problem_of(http.get(f"/v1/jobs/{job_id}/steps/1/sequences/7"), 404)["param"] == "n"
    assert problem_of(http.get(f"/v1/jobs/{job_id}/steps/{2**40}/sequences"), 422)["param"] == "step"


def test_without_a_broker_the_recorded_steps_remain(http, run, broker):
    job_id, files = run
    records.write_part(files, [row(1)], 1, 10, 1)
    broker.stop()
    assert http.get(f"/v1/jobs/{job_id}/steps").json()["data"] == [{"step": 1, "sequences": 1, "tokens": 3}]
    assert http.get(f"/v1/jobs/{job_id}/steps/1/sequences/0").status_code == 200


@pytest.mark.parametrize("where", ["live", "at rest"])
def test_a_sequence_token_by_token(http, run, live, where):
    job_id, files = run
    record = {**row(5, length=4), "token_ids": [1, 2, 3, 99], "log_ratio": [-1.0, float("-inf"), float("nan"), 0.5]}
    record |= {"probe_ids": [None, [1, 2], None, None], "probe_predicted": [None, [0.25, -0.25], None, None]}
    record |= {"probe_realised": [None, [0.5, -0.5], None, None], "route_ids": [[2], [], [], []]}
    record |= {"route_weights": [[0.75], [], [], []]}
    if where == "live":
        live.publish_records(job_id, 5, 1, records.encode([record]))
    else:
        records.write_part(files, [record], 1, 10, 1)
    (summary,) = http.get(f"/v1/jobs/{job_id}/steps/5/sequences").json()["data"]
    assert summary["log_ratio_mean"] == -0.25
    assert summary["log_ratio_min"] == -1.0
    assert summary["prompt"] == "Ann has 2 apples. 🍎"
    assert (summary["answer"], summary["correct"], summary["truncated"]) == (None, None, True)
    found = http.get(f"/v1/jobs/{job_id}/steps/5/sequences/0").json()
    assert found | {"tokens": None} == {"object": "sequence", "step": 5, "tokens": None, **summary}
    tokens = found["tokens"]
    assert [token["pos"] for token in tokens] == [0, 1, 2, 3]
    assert [token["text"] for token in tokens] == ["one", "two", "\ufffd", "<99>"]
    assert [token["log_ratio"] for token in tokens] == [-1.0, None, None, 0.5]
    assert tokens[0]["return"] == pytest.approx(5.01)
    assert tokens[0]["value"] == pytest.approx(5.01)
    assert tokens[0]["gates"] == {"tip": 1.0, "window": 0.5}
    assert tokens[1]["components"] == {"return": pytest.approx(5.01), "baseline": pytest.approx(-5.01)}
    assert tokens[0]["student_top"][1] == {
        "id": 2,
        "text": "two",
        "logp": pytest.approx(-5.01),
        "teacher_logp": pytest.approx(-5.01),
    }
    assert set(tokens[0]["teacher_top"][0]) == {"id", "text", "logp", "student_logp"}
    assert tokens[0]["route"] == [{"id": 2, "text": "two", "weight": 0.75}]
    assert tokens[1]["reply"] == [{"id": 1, "text": "one"}, {"id": 2, "text": "two"}]
    assert [token["reply"] for token in tokens[2:]] == [[], []]
    assert tokens[0]["probe"] is None
    assert tokens[1]["probe"] == [
        {"id": 1, "text": "one", "predicted": 0.25, "realised": 0.5},
        {"id": 2, "text": "two", "predicted": -0.25, "realised": -0.5},
    ]


@pytest.mark.parametrize("absent", [None, []])
def test_a_method_without_critic_gates_and_components(http, run, absent):
    job_id, files = run
    names = {"gate_names": absent, "component_names": absent}
    numbers = dict.fromkeys(("gate_weights", "component_values"), None if absent is None else [[]] * 3)
    records.write_part(files, [row(1) | {"values": None} | names | numbers], 1, 10, 1)
    for token in http.get(f"/v1/jobs/{job_id}/steps/1/sequences/0").json()["tokens"]:
        assert (token["value"], token["gates"], token["components"]) == (None, {}, {})


def test_the_newest_attempt_of_a_step_is_shown(http, run, live, store):
    job_id, _ = run
    live.publish_records(job_id, 5, 1, records.encode([row(5, attempt=1)]))
    live.publish_records(job_id, 6, 1, records.encode([row(6, attempt=1)]))
    store.requeue(job_id, 1, crashed=False)
    store.claim(job_id, "w2", 30)
    live.publish_records(job_id, 5, 2, records.encode([row(5, 0, 2), row(5, 1, 2)]))
    assert len(http.get(f"/v1/jobs/{job_id}/steps/5/sequences").json()["data"]) == 2
    assert len(http.get(f"/v1/jobs/{job_id}/steps/6/sequences").json()["data"]) == 1
    assert http.get(f"/v1/jobs/{job_id}/steps").json()["data"] == [
        {"step": 5, "sequences": 2, "tokens": None},
        {"step": 6, "sequences": 1, "tokens": None},
    ]


def test_the_live_stream_keeps_the_newest_steps_only(run, live, services):
    job_id, _ = run
    payload = records.encode([row(1)])
    for step in range(70):
        live.publish_records(job_id, step, 1, payload)
    assert list(services.live.steps(job_id)) == list(range(6, 70))
    assert services.live.read_step(job_id, 5, 1) is None
    assert len(services.live.read_step(job_id, 6, 3)) == 1


def probed(step, states, n=0):
    """A record whose states are (token, log-ratio, {target: (predicted, realised)} or None)."""
    changes = [state[2] for state in states]
    return {
        **row(step, n, length=len(states)),
        "token_ids": [state[0] for state in states],
        "log_ratio": [state[1] for state in states],
        "probe_ids": [None if change is None else list(change) for change in changes],
        "probe_predicted": [None if c is None else [value[0] for value in c.values()] for c in changes],
        "probe_realised": [None if c is None else [value[1] for value in c.values()] for c in changes],
    }


def test_the_routing_heatmap_averages_over_suppressed_probed_states(http, run, live):
    job_id, files = run
    at_rest = [
        probed(1, [(1, -1.0, {1: (-0.5, -0.25), 2: (0.5, 0.125)}), (1, -2.0, {1: (-0.25, -0.5)}), (2, -1.0, None)]),
        probed(2, [(1, +1.0, {2: (9.0, 9.0)}), (2, -1.0, {3: (0.125, float("nan"))})]),
        probed(3, [(1, -1.0, {1: (-9.0, -9.0)})]),
    ]
    records.write_part(files, at_rest, 1, 10, 1)
    live.publish_records(job_id, 2, 1, records.encode([at_rest[1]]))  # also at rest: counted once
    live.publish_records(job_id, 4, 1, records.encode([probed(4, [(2, -1.0, {1: (0.25, 0.25)})])]))
    heatmap = http.get(f"/v1/jobs/{job_id}/heatmaps/routing?from_step=1&to_step=2").json()
    assert (heatmap["kind"], heatmap["from_step"], heatmap["to_step"], heatmap["states"]) == ("routing", 1, 2, 3)
    assert heatmap["rows"] == [{"id": 1, "text": "one", "count": 2}, {"id": 2, "text": "two", "count": 1}]
    assert [column["id"] for column in heatmap["columns"]] == [1, 2, 3]
    assert heatmap["predicted"] == [[-0.375, 0.25, 0.0], [0.0, 0.0, 0.125]]
    assert heatmap["realised"] == [[-0.375, 0.0625, 0.0], [0.0, 0.0, 0.0]]
    whole = http.get(f"/v1/jobs/{job_id}/heatmaps/routing?rows=1&columns=1").json()
    assert (whole["from_step"], whole["to_step"], whole["states"]) == (1, 4, 5)
    assert (len(whole["rows"]), len(whole["columns"]), len(whole["predicted"][0])) == (1, 1, 1)


def routed(step, states):
    """A record whose states are (token, log-ratio, coefficient, {target: weight}); none is probed but the first."""
    return {
        **probed(
            step, [(token, ratio, {9: (0.5, 0.5)} if i == 0 else None) for i, (token, ratio, *_) in enumerate(states)]
        ),
        "coefficients": [coefficient for _, _, coefficient, _ in states],
        "route_ids": [list(route) for *_, route in states],
        "route_weights": [list(route.values()) for *_, route in states],
    }


def test_the_routing_heatmap_shows_what_the_plan_sent_over_all_recorded_states(http, run, live):
    job_id, files = run
    states = [
        (1, -1.0, -0.5, {2: 0.25, 3: 0.25}),
        (1, -2.0, -1.0, {2: 1.0}),  # not probed, and counted
        (1, -2.0, 0.5, {}),  # credit that rewards it: nothing is released
        (1, +1.0, 2.0, {2: 8.0}),  # not suppressed
        (2, -1.0, float("nan"), {3: float("nan")}),  # never probed: no row, but in the balance
    ]
    records.write_part(files, [routed(1, states)], 1, 10, 1)
    live.publish_records(job_id, 2, 1, records.encode([routed(2, states[:1])]))
    heatmap = http.get(f"/v1/jobs/{job_id}/heatmaps/routing?to_step=1").json()
    assert (heatmap["states"], heatmap["rows"]) == (1, [{"id": 1, "text": "one", "count": 1}])
    assert [column["id"] for column in heatmap["columns"]] == [9, 2, 3]
    assert heatmap["routed"] == [[0.0, pytest.approx(1.25 / 3), pytest.approx(0.25 / 3)]]
    assert heatmap["realised"] == [[0.5, 0.0, 0.0]]
    assert heatmap["balance"] == {"suppressed": 4, "released": 0.375, "routed": 0.375, "empty_rate": 0.25}
    both = http.get(f"/v1/jobs/{job_id}/heatmaps/routing").json()
    assert both["balance"] == {"suppressed": 5, "released": 0.4, "routed": 0.4, "empty_rate": 0.2}


def test_without_routes_there_is_nothing_sent(http, run):
    job_id, files = run
    records.write_part(files, [routed(1, [(1, -1.0, -0.5, {})])], 1, 10, 1)
    heatmap = http.get(f"/v1/jobs/{job_id}/heatmaps/routing").json()
    assert heatmap["states"] == 1
    assert (heatmap["routed"], heatmap["balance"]) == (None, None)


def test_a_run_without_records_has_empty_answers(http, job_id):
    assert http.get(f"/v1/jobs/{job_id}/steps").json()["data"] == []
    assert http.get(f"/v1/jobs/{job_id}/metrics").json() == {"object": "metrics", "steps": [], "series": {}}
    heatmap = http.get(f"/v1/jobs/{job_id}/heatmaps/routing?from_step=3").json()
    assert (heatmap["states"], heatmap["rows"], heatmap["predicted"], heatmap["from_step"]) == (0, [], [], 3)
    assert http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"] == []


def test_the_report_comes_with_the_end(http, run, store):
    job_id, _ = run
    assert "no report yet" in problem_of(http.get(f"/v1/jobs/{job_id}/report"), 404)["detail"]
    store.finish(job_id, 1, "succeeded", report={"accuracy": {"before": 0.25}, "extra": float("nan")})
    assert http.get(f"/v1/jobs/{job_id}/report").json() == {"accuracy": {"before": 0.25}, "extra": None}


def test_outcomes_are_there_once_the_run_was_examined(http, run):
    job_id, files = run
    assert "has not been examined" in problem_of(http.get(f"/v1/jobs/{job_id}/evaluation"), 404)["detail"]
    before = {"correct": [True, False], "length": [3, 8], "truncated": [False, True], "samples_solved": None}
    known = {"problems": [7, 9], "teacher": [True, True], "before": before, "after": None}
    files.write_json("evaluation.json", known)
    assert http.get(f"/v1/jobs/{job_id}/evaluation").json() == {"object": "evaluation", **known}


def publish(files, store, job_id, tmp_path, name="step-000001.a1", kind="training"):
    """What a trainer and its supervisor do: files first, then the row."""
    local = tmp_path / "made"
    (local / "sub").mkdir(parents=True)
    (local / "model.safetensors").write_bytes(bytes(range(256)) * 3000)
    (local / "sub" / "a b.json").write_bytes(b"{}")
    folder = name if kind == "export" else f"checkpoints/{name}"
    manifest = files.publish(local, folder, manifest={"step": 1, "attempt": 1, "kind": kind})
    size = sum(file["size"] for file in manifest["files"])
    return store.add_checkpoint(job_id, 1, name=name, step=1, kind=kind, size_bytes=size, files=manifest["files"])


@pytest.mark.parametrize(("name", "kind"), [("step-000001.a1", "training"), ("student", "export")])
def test_checkpoints_are_listed_and_downloaded_by_opaque_ids(http, run, store, tmp_path, name, kind):
    job_id, files = run
    row = publish(files, store, job_id, tmp_path, name, kind)
    (listed,) = http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    assert listed == http.get(f"/v1/jobs/{job_id}/checkpoints/{row.id}").json()
    assert http.get(f"/v1/jobs/{job_id}").json()["latest_checkpoint"] == row.id
    for file in listed["files"]:
        answer = http.get(f"/v1/jobs/{job_id}/checkpoints/{row.id}/files/{file['id']}")
        assert answer.status_code == 200
        assert len(answer.content) == file["size"] == int(answer.headers["content-length"])
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
    base = f"/v1/jobs/{job_id}/checkpoints"
    for bad in ("model.safetensors", "..%2fmanifest.json", row.id):
        problem_of(http.get(f"{base}/{row.id}/files/{bad}"), 404)
        problem_of(http.get(f"{base}/{bad}x"), 404)
    files.remove(name if kind == "export" else f"checkpoints/{name}")
    gone = problem_of(http.get(f"{base}/{row.id}/files/{listed['files'][0]['id']}"), 404)
    assert "no longer stored" in gone["detail"]


def test_recipes_models_tasks_and_workers(http, store, tmp_path):
    recipes = http.get("/v1/recipes").json()["data"]
    assert {"gkd", "forward-kl"} <= {recipe["name"] for recipe in recipes}
    for recipe in recipes:
        assert http.get(f"/v1/recipes/{recipe['name']}").json() == recipe
        known = load(recipe["name"])
        expected = {**known.model_dump(mode="json"), "brings": known.brings.brief()}
        assert recipe == {"object": "recipe", **expected}
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    (tmp_path / "models" / "no-model").mkdir()
    models = {model["id"]: model["kind"] for model in http.get("/v1/models").json()["data"]}
    mine = str((tmp_path / "models" / "mine").resolve())
    # The API starts without torch and has lists of its own: they name what there is.
    assert models == {**dict.fromkeys(demo_models.NAMES, "demo"), mine: "directory"}
    tasks = [task["name"] for task in http.get("/v1/tasks").json()["data"]]
    assert tasks[0] == "demo/word-problems"
    assert set(tasks) == set(BUILT_IN)
    store.heartbeat_worker("w1", "host", ["cpu"], 42, labels={"gpu": "none"})
    (worker,) = http.get("/v1/workers").json()["data"]
    assert (worker["name"], worker["alive"], worker["labels"]) == ("w1", True, {"gpu": "none"})


def test_health_reads_metrics_and_alarms_as_lights(http, run, store):
    job_id, _ = run
    found = http.get(f"/v1/jobs/{job_id}/health").json()
    assert [check["id"] for check in found["checks"]] == [f"A{i}" for i in range(1, 12)]
    assert {check["status"] for check in found["checks"]} == {"unknown"}
    for step in range(1, 301):
        store.add_metrics(job_id, 1, step, {"informativeness": 0.9, "length_mean": 4.0, "truncated": 0.0})
    checked = {"force_at_teacher": 1e-9, "shift": None, "alignment": {"-1": -2.0, "0": -1.0, "+1": -2.0}}
    store.add_event(job_id, "info", "self_check", "fine", checked)
    store.add_event(job_id, "warning", "health", "completions are too short", {"check": "early_stopping"})
    found = http.get(f"/v1/jobs/{job_id}/health").json()
    lights = {check["id"]: check for check in found["checks"]}
    assert (lights["A1"]["status"], lights["A1"]["value"]) == ("good", pytest.approx(0.9))
    assert len(lights["A1"]["series"]["informativeness"]) == len(found["steps"]) <= 200
    assert lights["A9"]["status"] == "bad"
    assert "early stopping" in lights["A9"]["sentence"]
    assert lights["A11"]["status"] == "good"
    assert found["alarms"] == ["completions are too short"]


@pytest.mark.parametrize("where", ["live", "at rest"])
def test_how_large_the_numbers_of_a_step_are(http, run, live, where):
    job_id, files = run
    nothing, endless = float("nan"), float("inf")
    rows = [
        {**row(5, 0, length=4), "token_ids": [1, 2, 3, 4], "log_ratio": [-1.0, nothing, -endless, 0.5]},
        {**row(5, 1), "token_ids": [1, 1, 1], "values": None, "gate_weights": [[1.0, 0.25], [3.0, 0.0], [1.0, 0.0]]},
    ]
    probed = [None, [1, 2], None]
    rows[0] |= {"probe_ids": [*probed, None], "probe_realised": [None, [0.5, -0.125], None, None]}
    rows[0] |= {"probe_predicted": [None, [0.0, 0.0], None, None], "route_ids": [[]] * 4, "route_weights": [[]] * 4}
    if where == "live":
        live.publish_records(job_id, 5, 1, records.encode(rows))
    else:
        records.write_part(files, rows, 1, 10, 1)
    found = http.get(f"/v1/jobs/{job_id}/steps/5/quantities").json()
    path = f"/v1/jobs/{job_id}/steps/5/sequences"
    slow = quantities([http.get(f"{path}/{n}").json() for n in (0, 1)])
    assert found["step"] == 5
    assert {one["name"]: one for one in found["data"]} == {one["name"]: pytest.approx(one) for one in slow}
    known = {one["name"]: one for one in found["data"]}
    assert (known["realised"]["lowest"], known["realised"]["highest"]) == (-12.5, 50.0)
    assert (known["gate:tip"]["highest"], known["gate:window"]["limit"]) == (3.0, 1.0)
    assert known["log_ratio"]["tokens"] == 5
    assert known["value"]["tokens"] == 4
    assert "no token records" in problem_of(http.get(f"/v1/jobs/{job_id}/steps/9/quantities"), 404)["detail"]


def test_a_step_whose_tokens_have_no_gates_and_no_probes(http, run):
    job_id, files = run
    bare = dict.fromkeys(["gate_names", "gate_weights", "component_names", "component_values", "values"])
    unprobed = dict.fromkeys(["probe_ids", "probe_predicted", "probe_realised"], [None] * 3)
    empty = {key: [] for key in unprobed}
    records.write_part(files, [{**row(1), **bare, **unprobed}, {**row(1, 1, length=0), **bare, **empty}], 1, 10, 1)
    found = http.get(f"/v1/jobs/{job_id}/steps/1/quantities").json()["data"]
    assert [one["name"] for one in found] == [
        *("log_ratio", "return", "advantage", "gate", "coefficient", "kl", "entropy_student", "entropy_teacher")
    ]
