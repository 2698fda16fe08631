"""Access tokens, who submitted a job, and the indexes that keep searches flat.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

from opd_core.runs.plain import storable

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.PrimaryKeyConstraint("name", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
    )
    op.add_column("jobs", sa.Column("created_by", sa.String(64)))
    op.create_index("ix_jobs_status_jobs_created_by", "jobs", ["status", "created_by"])
    op.create_index("ix_jobs_id_jobs_name", "jobs", ["id", "name"])
    op.create_index("ix_questions_job_id", "questions", ["job_id"])
    op.create_index("ix_idempotency_job_id", "idempotency", ["job_id"])
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])
    key = sa.ForeignKey("jobs.id", name="fk_labels_job_id", ondelete="CASCADE")
    op.create_table(
        "labels",
        sa.Column("job_id", sa.String(48), key, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "key", name="pk_labels"),
    )
    op.create_index("ix_labels_key_labels_value_labels_job_id", "labels", ["key", "value", "job_id"])
    _label_what_is_there()


def _label_what_is_there() -> None:
    jobs = sa.table("jobs", sa.column("id"), sa.column("metadata", sa.JSON))
    labels = sa.table("labels", sa.column("job_id"), sa.column("key"), sa.column("value"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(jobs.c.id, jobs.c.metadata)).all():
        found = [{"job_id": row.id, "key": key, "value": storable(value)} for key, value in row.metadata.items()]
        if found:
            connection.execute(sa.insert(labels), found)
