"""A spec cannot make the service call out, carry a secret, or name what is not for it."""

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from opd_core.runs.queue import celery_config
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec
from tests.fuzz.world import SPEC

TOKEN = "a-test-token"
# names of columns and files (below allowed roots), patterns of modules, a pattern, and text that a teacher reads
FREE_TEXTS = {
    *("answer_column", "demonstration_column", "messages_column", "prompt_column", "tag_column"),
    *("dataset", "eval_dataset", "model", "targets", "pattern", "context", "system_prompt"),
}
# where clouds keep their credentials, a local port, and other ways to write it
ADDRESSES = (
    "http://169.254.169.254/latest/meta-data",
    "https://example.com/model",
    "http://127.0.0.1:8000/v1",
    "http://[::1]/x",
    "ftp://host/x",
    "file:///etc/passwd",
    "s3://bucket/x",
    "hf://datasets/owner/name",
    "//host/x",
    "\\\\host\\share",
    "gopher://x",
)


@pytest.fixture
def http(tmp_path):
    app = create_app(Settings(home=tmp_path, api_token=TOKEN, reconcile=False, model_roots="/m", data_roots="/d"))
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_field_takes_an_address(http, address):
    for change in (
        {"teacher": {"model": address}},
        {"student": {"model": address}},
        {"task": {"dataset": address}},
        {"task": {"dataset": "/d/x.jsonl", "eval_dataset": address}},
        {"teacher": {"endpoint": address}},
        {"webhook": address},
        {"resources": {"queue": address}},
    ):
        assert http.post("/v1/jobs", json={**SPEC, **change}).status_code == 422, change
    assert http.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize("name", ["api_key", "apiKey", "token", "password", "hf_token", "env"])
def test_a_spec_has_no_place_for_a_secret(http, name):
    secret = "not-to-be-kept-3141"
    for change in ({name: secret}, {"teacher": {"model": "demo/teacher", name: secret}}):
        refused = http.post("/v1/jobs", json={**SPEC, **change})
        assert refused.status_code == 422
        assert secret not in refused.text


def test_the_only_free_texts_of_a_spec_are_known():
    """A new string field without a pattern or a choice shows up here: is it a place for a secret or an address?"""
    free = set()

    def walk(schema, name=""):
        if schema.get("type") == "string" and not {"pattern", "enum", "const"} & set(schema):
            free.add(name)
        for key, field in schema.get("properties", {}).items():
            walk(field, key)
        for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("prefixItems", ())):
            walk(part, name)
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                walk(schema[key], name)

    document = JobSpec.model_json_schema()
    walk(document)
    for name, part in document["$defs"].items():
        walk(part, name)
    assert free - FREE_TEXTS == set()


def test_the_queue_takes_json_alone_and_keeps_no_results():
    config = celery_config("redis://127.0.0.1:1/0")
    assert config["accept_content"] == ["json"]
    assert config["task_ignore_result"] is True
