import math

import pytest

from opd_core.runs import profiles, records
from tests.api.test_jobs import problem_of
from tests.runs.test_profiles import profile
from tests.runs.test_records import row


def spread(step, tokens, mean, field="log_ratio", attempt=1, level=0.0):
    """A profile with these tokens and means by position."""
    missing = profiles.BINS - len(tokens)
    return profile(step, field, attempt) | {
        "tokens": tokens + [0] * missing,
        "mean": mean + [None] * missing,
        "quantiles": [level] * len(profiles.QUANTILES),
    }


def test_a_quantity_by_position_and_step(http, run, live):
    job_id, files = run
    profiles.write_part(files, [spread(1, [4, 2], [-1.0, -2.0]), spread(2, [4, 0], [-3.0, None])], 1, 2, 1)
    fresh = [spread(3, [1, 1], [-5.0, -7.0], level=-6.0)]
    live.publish_records(job_id, 3, 1, records.encode([row(3)]), profiles.encode(fresh))
    found = http.get(f"/v1/jobs/{job_id}/heatmaps/returns").json()
    assert (found["steps"], found["to_steps"], found["positions"]) == ([1, 2, 3], [1, 2, 3], [0, 1])
    assert found["mean"] == [[-1.0, -3.0, -5.0], [-2.0, None, -7.0]]
    assert found["tokens"] == [[4, 4, 1], [2, 0, 1]]
    assert found["average"] == [pytest.approx(-4 / 3), -3.0, -6.0]
    assert found["quantiles"][0] == [0.0, 0.0, -6.0]
    assert (sum(found["histogram"]), len(found["edges"])) == (9, len(found["histogram"]) + 1)
    assert (found["field"], found["fields"]) == ("log_ratio", ["log_ratio"])


def test_bins_weigh_every_token_the_same(http, run):
    job_id, files = run
    rows = [spread(1, [1, 3, 1], [-1.0, -2.0, 0.5]), spread(2, [3, 0, 1], [-5.0, None, 1.5]), spread(3, [1], [8.0])]
    profiles.write_part(files, rows, 1, 3, 1)
    found = http.get(f"/v1/jobs/{job_id}/heatmaps/returns?rows=2&columns=2").json()
    assert (found["steps"], found["to_steps"]) == ([1, 3], [2, 3])
    assert (found["positions"], found["position_width"]) == ([0, 2], 2)
    assert found["tokens"] == [[7, 1], [2, 0]]
    assert found["mean"] == [[pytest.approx((-1 - 6 - 15) / 7), 8.0], [1.0, None]]


def test_a_range_of_steps_and_another_quantity(http, run):
    job_id, files = run
    rows = [spread(step, [1], [float(step)], field) for step in (1, 2, 3) for field in ("kl", "value")]
    profiles.write_part(files, rows, 1, 3, 1)
    found = http.get(f"/v1/jobs/{job_id}/heatmaps/returns?field=kl&from_step=2&to_step=2").json()
    assert found["mean"] == [[2.0]]
    assert found["fields"] == ["kl", "value"]
    assert http.get(f"/v1/jobs/{job_id}/heatmaps/returns").json()["mean"] == []
    assert "log_ratio" in problem_of(http.get(f"/v1/jobs/{job_id}/heatmaps/returns?field=nothing"), 422)["detail"]


def test_a_step_that_was_trained_again_is_shown_once(http, run, live, store):
    job_id, files = run
    profiles.write_part(files, [spread(1, [1], [-1.0]), spread(2, [1], [-2.0])], 1, 2, 1)
    profiles.write_part(files, [spread(2, [1], [-9.0], attempt=2)], 2, 2, 2)
    live.publish_records(job_id, 2, 2, records.encode([row(2)]), profiles.encode([spread(2, [1], [-9.0], attempt=2)]))
    assert http.get(f"/v1/jobs/{job_id}/heatmaps/returns").json()["mean"] == [[-1.0, -9.0]]


def gated(step, tokens, first, second):
    """A record with two gates, ``first`` and ``second``."""
    pairs = [[a, b] for a, b in zip(first, second, strict=True)]
    numbers = {"token_ids": tokens, "gate_names": ["first", "second"], "gate_weights": pairs}
    return {**row(step, length=len(tokens)), **numbers, "gates": [a * b for a, b in pairs]}


@pytest.fixture
def silenced(run):
    """Token 7 is silenced by the first gate in 3 of 4 cases, token 8 never; the second gate silences one of each."""
    job_id, files = run
    tokens = [7, 7, 7, 7, 8, 8, 8, 8]
    first, second = [0.0, 0.4, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    records.write_part(files, [gated(1, tokens, first, second)], 1, 1, 1)
    fields = ("gate", "gate:first", "gate:second")
    profiles.write_part(files, [spread(1, [4, 4], [0.4, 1.0], field) for field in fields], 1, 1, 1)
    return job_id


def test_which_tokens_a_gate_silences_beside_what_chance_would(http, silenced):
    found = http.get(f"/v1/jobs/{silenced}/heatmaps/gates?gate=first").json()
    assert found["profile"]["mean"] == [[pytest.approx(0.4)], [1.0]]
    summary = found["summary"]
    assert (summary["tokens"], summary["silenced"]) == (8, 3 / 8)
    assert summary["mean"] == pytest.approx(5.6 / 8)
    (token,) = summary["most_silenced"]
    assert (token["id"], token["seen"], token["silenced"]) == (7, 4, 3)
    assert token["lift"] == pytest.approx((3 / 4) / (3 / 8))


def test_how_gates_overlap(http, silenced):
    summary = http.get(f"/v1/jobs/{silenced}/heatmaps/gates").json()["summary"]
    assert summary["gates"] == ["first", "second"]
    assert summary["overlap"] == [[1.0, 1 / 4], [1 / 4, 1.0]]
    p, q = 3 / 8, 2 / 8
    assert summary["chance"][0][1] == pytest.approx(p * q / (p + q - p * q))
    assert summary["silenced"] == pytest.approx(4 / 8)


def test_an_unknown_gate_is_refused_with_those_there_are(http, silenced):
    problem = problem_of(http.get(f"/v1/jobs/{silenced}/heatmaps/gates?gate=third"), 422)
    assert problem["param"] == "gate"
    assert "first, second" in problem["detail"]


def test_a_run_without_gates_or_records_has_empty_answers(http, run):
    job_id, files = run
    empty = http.get(f"/v1/jobs/{job_id}/heatmaps/gates").json()
    assert (empty["summary"]["tokens"], empty["summary"]["gates"], empty["profile"]["mean"]) == (0, [], [])
    nameless = row(1) | {"gate_names": [], "gate_weights": [[]] * 3, "gates": [1.0] * 3}
    records.write_part(files, [nameless], 1, 1, 1)
    found = http.get(f"/v1/jobs/{job_id}/heatmaps/gates").json()["summary"]
    assert (found["tokens"], found["silenced"], found["overlap"]) == (3, 0.0, [])


def test_a_long_range_is_thinned_and_says_so(http, run, monkeypatch):
    job_id, files = run
    monkeypatch.setattr("api.recorded.MAX_TOKENS", 6)
    records.write_part(files, [row(step) for step in range(1, 7)], 1, 6, 1)  # three tokens each
    found = http.get(f"/v1/jobs/{job_id}/heatmaps/gates").json()
    assert (found["steps_read"], found["steps_recorded"], found["summary"]["tokens"]) == (2, 6, 6)
    heatmap = http.get(f"/v1/jobs/{job_id}/heatmaps/routing").json()
    assert (heatmap["steps_read"], heatmap["to_step"]) == (2, 6)
    assert math.isclose(heatmap["from_step"], 3)


def test_the_places_where_a_token_was_suppressed(http, run, live):
    job_id, files = run

    def written(step, n, tokens, ratios):
        numbers = {"token_ids": tokens, "log_ratio": ratios, "coefficients": ratios}
        return {**row(step, n, length=len(tokens)), **numbers, "probe_ids": [None] * (len(tokens) - 1) + [[1]]}

    at_rest = [written(1, 0, [7, 8, 7], [-1.0, -9.0, 2.0]), written(1, 1, [8, 7], [0.0, -3.0])]
    records.write_part(files, at_rest, 1, 1, 1)
    live.publish_records(job_id, 2, 1, records.encode([written(2, 4, [9, 7], [0.0, -2.0])]))
    found = http.get(f"/v1/jobs/{job_id}/tokens/7/suppressed?limit=2").json()
    assert (found["token"], found["total"]) == (7, 3)
    places = [(place["step"], place["sequence"], place["pos"], place["log_ratio"]) for place in found["data"]]
    assert places == [(1, 1, 1, -3.0), (2, 4, 1, -2.0)]
    assert [place["probed"] for place in found["data"]] == [True, True]
    assert http.get(f"/v1/jobs/{job_id}/tokens/7/suppressed?to_step=0").json()["total"] == 0
