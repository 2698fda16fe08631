"""What a token of each scope may do, over every operation of the document."""

import re

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from opd_core.runs.settings import Settings
from tests.api.conftest import SPEC
from tests.api.test_jobs import problem_of

UNKNOWN = {"job_id": "job_01m837yra7fgfac0fh2b4qwbpp"}


@pytest.fixture
def by(app, services):
    """Requests of a token of that scope: ``by(scope, name)``."""

    def ask(scope, name=None):
        secret = services.tokens.create(name or scope, scope)
        return TestClient(app, headers={"Authorization": f"Bearer {secret}"})

    return ask


def operations(http):
    for path, found in http.get("/openapi.json").json()["paths"].items():
        if path.endswith("/stream") or path == "/livez":
            continue
        for method in found:
            yield method.upper(), re.sub(r"{(\w+)}", lambda name: UNKNOWN.get(name[1], "1"), path), found[method]


def test_every_operation_wants_a_token_and_its_scope(http, app, by):
    read, submit = by("read"), by("submit")
    count = 0
    for method, path, described in operations(http):
        count += 1
        with TestClient(app) as nobody:
            problem_of(nobody.request(method, path), 401)
        answer = read.request(method, path)
        if method == "GET":
            assert answer.status_code not in (401, 403), path
            assert "403" not in described["responses"], path
        else:
            assert "'submit'" in problem_of(answer, 403)["detail"], path
            assert "403" in described["responses"], path
            assert submit.request(method, path).status_code not in (401, 403), path
    assert count >= 35


def test_a_job_says_whose_it_is_and_only_an_admin_deletes_it_for_others(http, by):
    mine, theirs, admin = by("submit", "mine"), by("submit", "theirs"), by("admin", "boss")
    jobs = [mine.post("/v1/jobs", json=SPEC).json() for _ in range(2)]
    assert jobs[0]["created_by"] == "mine"
    assert http.post("/v1/jobs", json=SPEC).json()["created_by"] == "admin"
    for job in jobs:
        assert theirs.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    refused = problem_of(theirs.delete(f"/v1/jobs/{jobs[0]['id']}"), 403)
    assert "'mine'" in refused["detail"]
    assert "'admin'" in refused["detail"]
    assert mine.delete(f"/v1/jobs/{jobs[0]['id']}").status_code == 204
    assert admin.delete(f"/v1/jobs/{jobs[1]['id']}").status_code == 204


def test_a_revoked_token_is_refused_at_once(by, services):
    ci = by("submit", "ci")
    assert ci.get("/v1/jobs").status_code == 200
    services.tokens.revoke("ci")
    problem_of(ci.get("/v1/jobs"), 401)


def test_an_idempotency_key_belongs_to_the_token(by):
    one, two = by("submit", "one"), by("submit", "two")
    key = {"Idempotency-Key": "same"}
    first = one.post("/v1/jobs", json=SPEC, headers=key).json()["id"]
    assert one.post("/v1/jobs", json=SPEC, headers=key).json()["id"] == first
    assert two.post("/v1/jobs", json=SPEC, headers=key).json()["id"] != first


def test_made_tokens_close_a_service_that_has_none_of_its_own(tmp_path):
    app = create_app(Settings(home=tmp_path, reconcile=False))
    tokens = app.state.services.tokens
    with TestClient(app, base_url="http://localhost:8321", client=("127.0.0.1", 5000)) as http:
        assert http.get("/v1/jobs").status_code == 200
        secret = tokens.create("ci", "read")
        problem_of(http.get("/v1/jobs"), 401)
        assert http.get("/v1/jobs", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_a_token_is_never_logged(app, services, capfd):
    secret = services.tokens.create("ci", "read")
    with TestClient(app, headers={"Authorization": f"Bearer {secret}"}) as http:
        http.get("/v1/jobs")
        http.post("/v1/jobs", json=SPEC)
        http.get("/v1/jobs", headers={"Authorization": f"Bearer {secret}x"})
    captured = capfd.readouterr()
    assert secret not in captured.out + captured.err
