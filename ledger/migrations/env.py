"""Alembic's entry; the connection comes from Ledger.migrate()."""

from alembic import context

from ledger.tables import Table

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True, transactional_ddl=True)
context.run_migrations()
