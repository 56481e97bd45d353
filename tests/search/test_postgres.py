"""The tables on a real PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa

from search.store.database import open_for_reading, open_for_writing
from search.store.tables import metadata


def test_every_table_is_made_on_postgresql(postgres_url: str):
    open_for_writing(postgres_url).dispose()
    engine = open_for_reading(postgres_url)
    assert set(sa.inspect(engine).get_table_names()) >= set(metadata.tables)
    engine.dispose()
