"""The short form of ``make fuzz``: every operation is asked, every answer is documented, nothing fails or is left over.

A fixed seed: the same requests on every run, but for constants that Hypothesis takes from whatever modules other tests
have loaded. New ones are what ``make fuzz`` is for.
"""

import pytest
import schemathesis
from fastapi.testclient import TestClient
from schemathesis import GenerationMode

from tests.fuzz.fuzz import stateful, stateless
from tests.fuzz.world import SPEC, TOKEN, World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "home")
    yield made
    made.close()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_a_documented_one(world, mode):
    stateless(world, 1, 3, mode)
    assert world.app.requests >= 60
    assert {200, 401, 404, 409} <= set(world.app.statuses)
    assert world.orphans() == []


def test_sequences_of_operations_leave_nothing_behind(world):
    stateful(world, 1, 24, 20)
    assert {201, 202} <= set(world.app.statuses)
    assert world.orphans() == []


def test_the_fuzzer_sees_failures_and_undocumented_answers(world, monkeypatch):
    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(type(world.store), "list_workers", broken)
    with pytest.raises(schemathesis.core.failures.FailureGroup) as seen:
        stateless(world, 1, 1, GenerationMode.POSITIVE, wanted=lambda operation: operation.path == "/v1/workers")
    assert "the service failed unexpectedly" in str(seen.value)
    monkeypatch.undo()
    del world.inner.openapi()["paths"]["/v1/workers"]["get"]["responses"]["200"]
    with pytest.raises(schemathesis.core.failures.FailureGroup, match="Undocumented status code"):
        stateless(world, 1, 1, GenerationMode.POSITIVE, wanted=lambda operation: operation.path == "/v1/workers")


def test_what_is_left_over_is_found(world):
    http = TestClient(world.inner, headers={"Authorization": f"Bearer {TOKEN}"})
    job_id = http.post("/v1/jobs", json=SPEC).json()["id"]
    known = world.make_job()
    assert world.orphans() == []
    world.services.files("job_gone").write_bytes("x", b"")
    world.services.files(job_id).write_bytes("questions/question_gone.json", b"{}")
    world.services.files(known["job_id"]).remove("checkpoints/step-000001.a1")
    with world.store.engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("DELETE FROM jobs WHERE id = ?", (job_id,))
    found = "\n".join(world.orphans())
    for sign in ("row (", "job_gone", "question_gone", "checkpoint without files"):
        assert sign in found
