"""The OpenAPI document against the service: generated requests find no server error and nothing undocumented."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from opd_core.runs import records
from tests.api.conftest import SPEC, TOKEN
from tests.api.test_telemetry import publish
from tests.runs.test_records import row

CHECKS = (
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@pytest.fixture
def known(http, store, services, tmp_path):
    """A job with something behind every address; values for path parameters."""
    job_id = http.post("/v1/jobs", json=SPEC).json()["id"]
    store.claim(job_id, "w1", 30)
    store.add_metrics(job_id, 1, 1, {"loss": 0.5})
    records.write_part(services.files(job_id), [row(1)], 1, 10, 1)
    checkpoint = publish(services.files(job_id), store, job_id, tmp_path)
    return {
        "job_id": job_id,
        "checkpoint_id": checkpoint.id,
        "file_id": checkpoint.files[0]["id"],
        "step": 1,
        "n": 0,
        "token": 0,
        "name": "gkd",
    }


@pytest.mark.parametrize("mode", ["existing", "ended", "generated"])
def test_every_answer_is_a_documented_one(app, http, store, known, mode):
    if mode == "ended":
        store.finish(known["job_id"], 1, "succeeded", report={"seed": 0})
    schema = schemathesis.openapi.from_asgi("/openapi.json", app).exclude(path_regex="/stream$")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    found = [operation.ok() for operation in schema.get_all_operations()]
    operations = sorted(found, key=lambda one: one.method == "delete")  # last: what it removes is asked for before
    assert len(operations) >= 20
    for operation in operations:

        @settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case):
            if mode != "generated":
                case.path_parameters = {key: known.get(key, made) for key, made in (case.path_parameters or {}).items()}
            case.call_and_validate(headers=headers, checks=CHECKS)

        import hypothesis

        hypothesis.given(case=operation.as_strategy())(check)()
