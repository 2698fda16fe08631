"""A store on a fresh SQLite file; on PostgreSQL too when OPD_TEST_POSTGRES_URL names a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opd_core.runs import database
from opd_core.runs.store import RunStore
from opd_core.spec import JobSpec
from tests.postgres import SERVER, fresh_database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.skipif(not SERVER, reason="no server"))])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/runs.db"
        return
    with fresh_database() as url:
        yield url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@pytest.fixture
def store(database_url: str) -> Iterator[RunStore]:
    """Migrated and empty."""
    engine = database.connect(database_url)
    database.migrate(engine)
    yield RunStore(engine)
    engine.dispose()


@pytest.fixture
def spec() -> JobSpec:
    """The smallest spec."""
    return JobSpec.model_validate(
        {
            "name": "a job",
            "student": {"model": "demo/student"},
            "teacher": {"model": "demo/teacher"},
            "task": {"name": "demo/word-problems"},
        }
    )
