"""A job's metadata as rows, so that a search by it is a look into an index."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Select, delete, insert, select

from opd_core.runs import tables as t
from opd_core.runs.plain import storable


def set_labels(connection: Connection, job_id: str, metadata: Mapping[str, str]) -> None:
    """These and no others."""
    connection.execute(delete(t.labels).where(t.labels.c.job_id == job_id))
    rows = [{"job_id": job_id, "key": key, "value": storable(value)} for key, value in metadata.items()]
    if rows:
        connection.execute(insert(t.labels), rows)


def labelled(key: str, value: str) -> Select[tuple[str]]:
    """Ids of the jobs whose metadata has this value."""
    return select(t.labels.c.job_id).where(t.labels.c.key == key, t.labels.c.value == storable(value))
