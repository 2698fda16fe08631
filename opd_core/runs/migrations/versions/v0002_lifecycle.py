"""Metadata that can be changed, and the wish for a checkpoint.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("metadata", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("jobs", sa.Column("save_wanted", sa.Boolean, nullable=False, server_default=sa.false()))
    jobs = sa.table("jobs", sa.column("id"), sa.column("spec", sa.JSON), sa.column("metadata", sa.JSON))
    connection = op.get_bind()
    for row in connection.execute(sa.select(jobs.c.id, jobs.c.spec)).all():
        metadata = row.spec.get("metadata", {})
        connection.execute(sa.update(jobs).where(jobs.c.id == row.id).values(metadata=metadata))
