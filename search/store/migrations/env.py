"""Alembic's entry point: migrates the connection it is handed, in the transaction it is handed."""

from alembic import context

from search.store import device_tables  # noqa: F401  its tables belong to the same metadata
from search.store.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
context.run_migrations()
