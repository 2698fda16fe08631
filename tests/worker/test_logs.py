"""A job's lines in the worker's log carry the id of the request that submitted it."""

from __future__ import annotations

import pytest
import structlog

from opd_core import recipes
from opd_core.spec import JobSpec
from tests.worker.conftest import Bench
from worker import tasks
from worker.supervisor import Ending


@pytest.mark.parametrize("request_id", ["req-1", None])
def test_one_id_finds_a_request_in_every_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, request_id: str | None
) -> None:
    monkeypatch.setenv("OPD_HOME", str(bench.settings.home))
    seen: list[object] = []

    class Watched:
        def __init__(self, *_: object, **__: object) -> None: ...

        def run(self) -> Ending:
            seen.append(structlog.contextvars.get_contextvars().get("request_id"))
            return Ending("succeeded", "succeeded")

    monkeypatch.setattr(tasks, "Supervisor", Watched)
    # without Celery the worker has no name
    monkeypatch.setattr(tasks.RunStore, "claim_next", lambda store, job_id, *_: store.claim(job_id, "w1", 30.0))
    spec = JobSpec.model_validate(bench.submit().spec)
    job = bench.store.create_job(spec, recipes.resolve(spec), request_id=request_id)
    tasks.run_job.run(job.id)
    assert seen == [request_id]
    assert "request_id" not in structlog.contextvars.get_contextvars()
