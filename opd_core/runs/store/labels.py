"""A job's metadata as rows, so that a search by it is a look into an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, insert, select

from opd_core.runs import tables as t
from opd_core.runs.plain import storable


def set_labels(connection: Connection, job_id: str, metadata: Mapping[str, str]) -> None:
    """These and no others."""
    connection.execute(delete(t.labels).where(t.labels.c.job_id == job_id))
    rows = [{"job_id": job_id, "key": key, "value": storable(value)} for key, value in metadata.items()]
    if rows:
        connection.execute(insert(t.labels), rows)


def labelled(metadata: Mapping[str, str]) -> tuple[Select[tuple[str]], ColumnElement[str]]:
    """Ids of the jobs whose metadata has all of this, and the column to order and page them by.

    That column is the first label's, whose index holds the ids in order: a page is read from its end, however many
    jobs have the label and however few.
    """
    ids, key = select(t.jobs.c.id), cast(ColumnElement[str], t.jobs.c.id)
    for number, (name, value) in enumerate(metadata.items()):
        label = t.labels.alias()
        has_it = and_(label.c.job_id == t.jobs.c.id, label.c.key == name, label.c.value == storable(value))
        ids = ids.join(label, has_it)
        if number == 0:
            key = label.c.job_id
    return ids, key
