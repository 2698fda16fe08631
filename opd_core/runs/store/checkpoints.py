"""The index of what runs have saved; the files are in ``opd_core.runs.artifacts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import delete, insert, select

from opd_core.runs import tables as t
from opd_core.runs.ids import new_id
from opd_core.runs.rows import Checkpoint
from opd_core.runs.store.base import Base
from opd_core.runs.store.transaction import held_job, set_job


class Checkpoints(Base):
    """Published directories by name, oldest first."""

    def add_checkpoint(
        self,
        job_id: str,
        attempt: int,
        *,
        name: str,
        step: int,
        kind: Literal["training", "export"],
        size_bytes: int,
        files: Sequence[Mapping[str, Any]],
    ) -> Checkpoint | None:
        """Index a published directory and make it the latest. A name that is published again replaces its row."""
        table = t.checkpoints
        checkpoint_id = new_id("ckpt")
        listed = [{"id": new_id("file"), **{key: file[key] for key in ("name", "size", "sha256")}} for file in files]
        with self._write() as connection:
            if held_job(connection, job_id, attempt) is None:
                return None
            connection.execute(delete(table).where(table.c.job_id == job_id, table.c.name == name))
            connection.execute(
                insert(table).values(
                    id=checkpoint_id,
                    job_id=job_id,
                    name=name,
                    step=step,
                    attempt=attempt,
                    kind=kind,
                    size_bytes=size_bytes,
                    created_at=t.db_now(),
                    files=listed,
                )
            )
            set_job(connection, job_id, latest_checkpoint=checkpoint_id, save_wanted=False)
            row = connection.execute(select(table).where(table.c.id == checkpoint_id)).mappings().one()
            return Checkpoint.of(row)

    def prune_checkpoint(self, job_id: str, attempt: int, name: str) -> bool:
        """Forget a checkpoint whose files were removed."""
        table = t.checkpoints
        newest = (
            select(table.c.id).where(table.c.job_id == job_id).order_by(table.c.id.desc()).limit(1).scalar_subquery()
        )
        with self._write() as connection:
            if held_job(connection, job_id, attempt) is None:
                return False
            connection.execute(delete(table).where(table.c.job_id == job_id, table.c.name == name))
            set_job(connection, job_id, latest_checkpoint=newest)
            return True

    def list_checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Oldest first."""
        table = t.checkpoints
        query = select(table).where(table.c.job_id == job_id).order_by(table.c.id)
        with self._read() as connection:
            return [Checkpoint.of(row) for row in connection.execute(query).mappings()]
