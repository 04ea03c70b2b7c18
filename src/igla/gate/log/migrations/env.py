"""Alembic's entry: runs the migrations on the connection that `Database` gives."""

from alembic import context

from igla.gate.log.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
