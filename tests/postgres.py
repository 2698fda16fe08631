"""Databases of their own on the PostgreSQL server that OPD_TEST_POSTGRES_URL names, as .ci/run does."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, create_engine, make_url, text

SERVER = os.environ.get("OPD_TEST_POSTGRES_URL")


@contextmanager
def fresh_database() -> Iterator[URL]:
    """An empty one, dropped afterwards. Needs SERVER."""
    url = make_url(str(SERVER))
    name = f"opd_test_{uuid.uuid4().hex}"
    admin = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()
