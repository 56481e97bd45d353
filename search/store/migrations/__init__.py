"""How a study database comes to its tables, version by version; `search.store.connection.schema` runs them."""
