"""Alembic's entry point: migrates the connection it is handed, in the transaction it is handed.

A migration that makes a SQLite table again (`batch_alter_table`) must switch foreign keys off before the transaction
begins: dropping the old table would delete the rows that refer to it.
"""

from alembic import context

from search.store import device_tables  # noqa: F401  its tables belong to the same metadata
from search.store.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
