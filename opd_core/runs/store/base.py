"""The ground under the parts of the store: one engine, transactions that read and transactions that write."""

from __future__ import annotations

from contextlib import AbstractContextManager

from sqlalchemy import Connection, Engine, select

from opd_core.runs import tables as t
from opd_core.runs.database import writer


class Base:
    """Thread-safe; holds nothing but the engine. Make the engine after a fork."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = writer(engine)

    def _read(self) -> AbstractContextManager[Connection]:
        return self.engine.connect()

    def _write(self) -> AbstractContextManager[Connection]:
        return self._writer.begin()

    def now(self) -> float:
        """The database's clock, UTC epoch seconds."""
        with self._read() as connection:
            return float(connection.execute(select(t.db_now())).scalar_one())
