"""Run the revisions on the connection that ``migrate`` hands over, inside its transaction."""

from alembic import context

from opd_core.runs.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
