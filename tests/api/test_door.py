"""Errors, tokens, headers, health: what holds for every request."""

import json
import os
import re
import stat
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.serve import protect
from opd_core.runs.settings import Settings
from opd_core.spec import UserError
from tests.api.conftest import SPEC, TOKEN
from tests.api.test_jobs import problem_of


def test_every_address_but_livez_wants_the_token(app):
    with TestClient(app) as http:
        assert http.get("/livez").json() == {"status": "ok"}
        for path in ("/v1/jobs", "/v1/recipes", "/readyz", "/metrics", "/nowhere"):
            refused = http.get(path)
            problem_of(refused, 401)
            assert refused.headers["www-authenticate"].startswith("Bearer")
        for header in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer \xff"):
            problem_of(http.get("/v1/jobs", headers={"Authorization": header.encode("latin-1")}), 401)
        assert http.get("/v1/jobs", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


def test_without_a_token_only_this_machine_is_answered_and_no_web_page(tmp_path):
    app = create_app(Settings(home=tmp_path, reconcile=False))
    local = {"base_url": "http://localhost:8321", "client": ("127.0.0.1", 5000)}
    with TestClient(app, **local) as http:
        assert http.get("/v1/jobs").status_code == 200
        problem_of(http.post("/v1/jobs", json=SPEC, headers={"Origin": "http://evil.example"}), 401)
        problem_of(http.get("/v1/jobs", headers={"Host": "evil.example"}), 401)
    with TestClient(app, **{**local, "client": ("192.0.2.1", 5000)}) as http:
        problem_of(http.get("/v1/jobs"), 401)


def test_no_open_door_without_a_token(tmp_path):
    with pytest.raises(UserError, match="OPD_API_TOKEN"):
        protect(Settings(home=tmp_path), "0.0.0.0")
    assert not (tmp_path / "token").exists()
    settings = protect(Settings(home=tmp_path), "127.0.0.1")
    token = settings.token()
    assert len(token) > 40
    assert stat.S_IMODE(settings.token_file.stat().st_mode) == 0o600
    assert protect(Settings(home=tmp_path), "0.0.0.0").token() == token


def test_the_command_line_refuses_an_open_door(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPD_")}
    done = subprocess.run(
        [sys.executable, "-m", "api.serve", "--host", "0.0.0.0", "--port", "1"],
        env={**environment, "OPD_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("--host 0.0.0.0 can be reached from other machines")


def test_every_error_is_a_problem(http):
    assert problem_of(http.get("/nowhere"), 404)["detail"] == "there is nothing at this address"
    refused = http.delete("/v1/recipes")
    problem_of(refused, 405)
    assert refused.headers["allow"] == "GET"
    assert problem_of(http.post("/v1/jobs", content=b"{"), 422)["param"] == "body"
    problem_of(http.post("/v1/jobs", content=b"{\xff}"), 400)
    problem_of(http.post("/v1/jobs", content=b"[" * 100_000), 400)
    assert problem_of(http.get("/v1/recipes/nope"), 404)["param"] == "name"
    long = problem_of(http.post("/v1/jobs", json={**SPEC, "name": "x" * 100_000}), 422)
    assert len(long["detail"]) < 500


def test_large_bodies_are_refused_whether_announced_or_not(http):
    assert "1 MiB" in problem_of(http.post("/v1/jobs", content=b" " * (1 << 20) + b"x"), 413)["detail"]
    problem_of(http.post("/v1/jobs", content=(b" " * 65536 for _ in range(17))), 413)
    problem_of(http.post("/v1/jobs", content=b" " * (1 << 20)), 422)


def test_the_unexpected_is_logged_and_not_shown(http, services, monkeypatch, capsys):
    def broken(_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(services.store, "get_job", broken)
    response = http.get("/v1/jobs/job_01m837yra7fgfac0fh2b4qwbpp", headers={"X-Request-ID": "find-me"})
    body = problem_of(response, 500)
    assert "secret detail" not in response.text
    assert "find-me" in body["detail"]
    logged = capsys.readouterr()
    assert "secret detail" in logged.err
    assert "find-me" in logged.err
    assert TOKEN not in logged.err + logged.out


def test_request_ids_are_taken_when_harmless(http):
    assert http.get("/livez", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for bad in ("a b", "x" * 129, "<script>", ""):
        assert http.get("/livez", headers={"X-Request-ID": bad}).headers["x-request-id"].startswith("req_")


def test_headers_keep_answers_private(http):
    for path, status in (("/v1/jobs", 200), ("/livez", 200), ("/openapi.json", 200), ("/nowhere", 404)):
        answer = http.get(path)
        assert answer.status_code == status
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    refused = http.get("/v1/jobs", headers={"Authorization": ""})
    assert refused.status_code == 401
    assert refused.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_the_page_of_the_document_loads_nothing_from_elsewhere(app):
    with TestClient(app) as http:
        page = http.get("/docs")
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "://" not in page.text
        loaded = re.findall(r'(?:src|href)="([^":]+)"', page.text)
        assert len(loaded) == 3
        for path in loaded:
            answer = http.get(f"/{path}")
            assert answer.status_code == 200, path
            assert len(answer.content) > 100
        assert "<script>" not in page.text
        assert http.get("/docs/other.js").status_code == 401


def test_readiness_says_what_is_missing(http, broker):
    ready = http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "checks": {"database": "ok", "broker": "ok", "artifacts": "ok"}}
    broker.stop()
    unready = http.get("/readyz")
    assert unready.status_code == 503
    assert unready.json()["checks"]["broker"] == "unreachable"


def test_prometheus_counts_jobs_and_requests(http, job_id):
    http.get(f"/v1/jobs/{job_id}")
    text = http.get("/metrics").text
    assert 'opd_jobs{status="queued"} 1.0' in text
    assert 'opd_jobs{status="failed"} 0.0' in text
    assert 'opd_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in text
    assert 'opd_queue_waiting{queue="cpu"} 1.0' in text
    assert 'opd_queue_oldest_wait_seconds{queue="cpu"}' in text
    assert 'opd_workers{queue="cpu"} 0.0' in text
    assert "opd_live_streams 0.0" in text
    assert job_id not in text


def test_lines_of_the_log_are_json_objects_when_asked_for(tmp_path):
    code = "import structlog, api.serve as s; s.serve = lambda *_: structlog.get_logger().info('up', n=1); s.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPD_HOME": str(tmp_path), "OPD_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stderr).items() >= {"event": "up", "n": 1, "level": "info"}.items()


def test_a_request_is_found_again_in_the_records_of_its_job(http):
    answer = http.post("/v1/jobs", json=SPEC, headers={"X-Request-ID": "mine-1"})
    events = http.get(f"/v1/jobs/{answer.json()['id']}/events").json()["data"]
    assert events[0]["type"] == "created"
    assert events[0]["data"] == {"created_by": "admin", "request_id": "mine-1"}


def test_importing_the_service_loads_no_training_library():
    code = (
        "import api.main, sys; print([m for m in ('torch', 'transformers', 'datasets', 'celery') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_document_describes_every_operation(http):
    document = http.get("/openapi.json").json()
    assert http.get("/docs").status_code == 200
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            assert operation["tags"], where
            if path == "/livez":
                continue
            assert operation["security"] == [{"HTTPBearer": []}], where
            assert {"401", "500"} <= set(operation["responses"]), where
            names_jobs = "{" in path or path.startswith("/v1/compare")  # in the path, or in its query
            assert ("404" in operation["responses"]) == names_jobs, where
            for status, response in operation["responses"].items():
                if int(status) >= 400 and status != "503":
                    assert list(response["content"]) == ["application/problem+json"], where
    create = document["paths"]["/v1/jobs"]["post"]
    assert create["requestBody"]["content"]["application/json"]["examples"]["demo"]["value"]["name"]
    assert set(create["responses"]) == {"200", "201", "400", "401", "403", "413", "422", "429", "500"}
