"""A store on a fresh SQLite file; on PostgreSQL too when OPD_TEST_POSTGRES_URL names a server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from opd_core.runs import database
from opd_core.runs.store import RunStore
from opd_core.spec import JobSpec

POSTGRES = os.environ.get("OPD_TEST_POSTGRES_URL")


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.skipif(not POSTGRES, reason="no server"))]
)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/runs.db"
        return
    server = make_url(str(POSTGRES)).set(drivername="postgresql+psycopg")
    name = f"opd_test_{uuid.uuid4().hex}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


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
