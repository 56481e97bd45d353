"""Alembic's migrations of a study database, one for each version; `search.store.connection.schema` runs them."""
