"""What one token may ask: how fast, how many live streams, how many waiting jobs."""

import httpx
import pytest
from fastapi.testclient import TestClient

from api.limits import Buckets
from api.main import create_app
from api.places import Places
from api.problems import ProblemError
from tests.api.conftest import SPEC, TOKEN
from tests.api.test_jobs import problem_of
from tests.waiting import wait_until


@pytest.fixture
def limited(settings):
    """An application with other limits: ``limited(name=value)``."""
    return lambda **limits: create_app(settings.model_copy(update=limits))


def client_of(app, token=TOKEN):
    return TestClient(app, headers={"Authorization": f"Bearer {token}"})


def test_a_bucket_holds_a_burst_and_fills_again():
    now = [0.0]
    buckets = Buckets(2.0, 3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a") == pytest.approx(0.5)
    assert buckets.take("b") == 0.0
    now[0] += 0.5
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0.0
    now[0] += 1000.0
    assert [buckets.take("a") for _ in range(4)][:3] == [0.0, 0.0, 0.0]
    assert buckets.take("a") > 0.0


def test_a_token_that_asks_too_fast_is_told_when_to_come_back(limited):
    app = limited(requests_per_s=0.1, requests_burst=2)
    secret = app.state.services.tokens.create("other", "read")
    with client_of(app) as http:
        assert [http.get("/v1/recipes").status_code for _ in range(2)] == [200, 200]
        refused = http.get("/v1/recipes")
        assert "OPD_REQUESTS_PER_S" in problem_of(refused, 429)["detail"]
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert http.get("/livez").status_code == 200
        assert client_of(app, secret).get("/v1/recipes").status_code == 200
        problem_of(client_of(app, "wrong").get("/v1/recipes"), 401)


def test_waiting_jobs_are_limited_by_token_and_in_all(limited):
    app = limited(waiting_per_token=2, waiting_total=3)
    tokens = app.state.services.tokens
    with client_of(app) as http:
        first = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "k"}).json()["id"]
        second = http.post("/v1/jobs", json=SPEC).json()["id"]
        refused = http.post("/v1/jobs", json=SPEC)
        body = problem_of(refused, 429)
        assert body["type"] == "urn:opd:problem:queue_full"
        assert "2 jobs of 'admin'" in body["detail"]
        assert "OPD_WAITING_PER_TOKEN" in body["detail"]
        assert refused.headers["retry-after"]
        # what is there already is answered, and what only looks is allowed
        assert http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "k"}).json()["id"] == first
        assert http.post("/v1/jobs?validate_only=true", json=SPEC).status_code == 200
        assert http.post(f"/v1/jobs/{second}/pause").json()["status"] == "paused"
        problem_of(http.post("/v1/jobs", json=SPEC), 429)  # a job at rest waits too
        other = client_of(app, tokens.create("other", "submit"))
        assert other.post("/v1/jobs", json=SPEC).status_code == 201
        assert "OPD_WAITING_TOTAL" in problem_of(other.post("/v1/jobs", json=SPEC), 429)["detail"]
        http.post(f"/v1/jobs/{first}/cancel")
        assert http.post("/v1/jobs", json=SPEC).status_code == 201
        assert len(http.get("/v1/jobs").json()["data"]) == 4


def test_a_place_is_given_back_however_its_stream_ends():
    places = Places(per_token=1, total=2)
    with places.place("a"):
        with pytest.raises(ProblemError, match="'a' has 1 live stream"), places.place("a"):
            pass
        with places.place("b"), pytest.raises(ProblemError, match="OPD_STREAMS_TOTAL"), places.place("c"):
            pass
        assert places.open == 1
    with pytest.raises(KeyError), places.place("a"):
        raise KeyError
    assert places.open == 0


def test_open_streams_are_limited_and_free_their_place(limited, serve):
    app = limited(streams_per_token=2, streams_total=2)
    server = serve(app)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers) as http:
        job_id = http.post("/v1/jobs", json=SPEC).json()["id"]
        stream = f"/v1/jobs/{job_id}/stream"
        with http.stream("GET", stream) as one, http.stream("GET", stream) as two:
            assert (one.status_code, two.status_code) == (200, 200)
            refused = http.get(stream)
            assert problem_of(refused, 429)["type"] == "urn:opd:problem:too_many_streams"
            assert refused.headers["retry-after"]
            assert "opd_live_streams 2.0" in http.get("/metrics").text
        left = "a viewer that left is noticed with the next update"
        wait_until(lambda: not app.state.services.streams.open, left, 60)
        with http.stream("GET", stream) as again:
            assert again.status_code == 200


def test_a_service_that_stops_ends_its_streams(app, serve):
    server = serve(app)
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        job_id = http.post("/v1/jobs", json=SPEC).json()["id"]
        with http.stream("GET", f"/v1/jobs/{job_id}/stream") as viewer:
            lines = viewer.iter_lines()
            assert next(lines) == "event: status"
            server.stop()  # fails when it is still there after a while
            assert "event: end" not in list(lines)  # the job is not over: its viewers come back
