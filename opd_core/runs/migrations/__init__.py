"""Alembic revisions of the run records, applied by ``opd_core.runs.database.migrate``."""
