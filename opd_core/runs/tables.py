"""The SQL tables. Times are UTC epoch seconds from the database's clock, so hosts need not agree on theirs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class db_now(FunctionElement[float]):  # noqa: N801  (reads as the SQL function it is)
    """The database's clock in UTC epoch seconds."""

    type = Double()
    inherit_cache = True


@compiles(db_now)
def _now_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _now_postgresql(*_: Any, **__: Any) -> str:
    return "(extract(epoch from clock_timestamp())::double precision)"


def _job_key(**options: Any) -> Column[str]:
    return Column("job_id", String(48), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, **options)


jobs = Table(
    "jobs",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("recipe", String(64), nullable=False),
    Column("queue", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("phase", String(256), nullable=False),
    Column("desired_state", String(16), nullable=False),
    # of the jobs that wait on a queue, the highest is claimed first
    Column("priority", Integer, nullable=False, server_default="0"),
    # attempt is the fencing token; crashes counts only the attempts that were lost, max_restarts limits them
    Column("attempt", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("max_restarts", Integer, nullable=False, server_default="3"),
    Column("worker", String(256)),
    Column("lease_until", Double),
    Column("rung_at", Double),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("event_seq", Integer, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("resolved_spec", JSON, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("accuracy", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("error", JSON),
    Column("report", JSON),
    Column("latest_checkpoint", String(48)),
    # as submitted in the spec; may be changed later, which the spec may not
    Column("metadata", JSON, nullable=False, server_default="{}"),
    # the user wants a checkpoint at the next step; the next one that is indexed fulfils it
    Column("save_wanted", Boolean, nullable=False, server_default=false()),
    # the name of the token that submitted it
    Column("created_by", String(64)),
    Index(None, "status", "id"),
    # how many wait, and whose they are
    Index(None, "status", "created_by"),
    # a search by a part of the name reads this, not the wide rows
    Index(None, "id", "name"),
)

labels = Table(
    "labels",
    metadata,
    # a job's metadata again, for searching
    _job_key(primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", String(256), nullable=False),
    Index(None, "key", "value", "job_id"),
)

attempts = Table(
    "attempts",
    metadata,
    _job_key(primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(256), nullable=False),
    Column("host", String(256)),
    Column("pid", Integer),
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", String(1024)),
)

events = Table(
    "events",
    metadata,
    _job_key(primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("id", String(48), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("level", String(16), nullable=False),
    Column("type", String(64), nullable=False),
    Column("message", String, nullable=False),
    Column("data", JSON, nullable=False),
    Column("attempt", Integer),
)

metrics = Table(
    "metrics",
    metadata,
    _job_key(primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("values", JSON, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", String(48), primary_key=True),
    _job_key(),
    Column("name", String(128), nullable=False),
    Column("step", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("files", JSON, nullable=False),
    UniqueConstraint("job_id", "name"),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(256), primary_key=True),
    Column("host", String(256), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("job_id", String(48)),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)

questions = Table(
    "questions",
    metadata,
    Column("id", String(48), primary_key=True),
    _job_key(),
    Column("kind", String(16), nullable=False),
    Column("request", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("phase", String(256), nullable=False),
    # tries is the fencing token of an answer
    Column("tries", Integer, nullable=False),
    Column("lease_until", Double),
    Column("rung_at", Double),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("error", JSON),
    Index(None, "status", "id"),
    Index(None, "job_id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("principal", String(64), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("body_hash", String(64), nullable=False),
    _job_key(),
    Column("created_at", Double, nullable=False),
    Index(None, "job_id"),
    Index(None, "created_at"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scope", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
    Column("revoked_at", Double),
)
