"""Databases of earlier versions: what is in them stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from search.devices.transitions import CANCELLED
from search.store import database
from search.store.database import open_for_writing, tune_sqlite, upgrade
from tests.search.tiny_devices import Desk
from tests.search.tiny_studies import sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def make_at(url: str, revision: str) -> sa.Engine:
    """Make a database with the tables of a revision."""
    engine = sa.create_engine(url)
    tune_sqlite(engine)
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def a_value(column: sa.Column[Any]) -> Any:
    """Something that fits into a column."""
    if isinstance(column.type, sa.String):
        return "x"
    return 7  # no key that a database would give the next row


def test_orders_get_owners_and_what_devices_were_asked_and_answered_stays(url: str):
    engine = make_at(url, "0003")
    names = [f"condensery_device{what}" for what in ("", "_job", "_lease", "_result", "_event")]
    tables = sa.MetaData()
    tables.reflect(engine, only=names)
    with engine.begin() as connection:
        for name in names:
            table = tables.tables[name]
            row = {column.name: a_value(column) for column in table.columns}
            row |= {"queue": "pi5", "state": "waiting"} if name == "condensery_device_job" else {}
            connection.execute(sa.insert(table).values(row))
    before = {name: content(engine, name) for name in names}
    engine.dispose()
    assert upgrade(url)[0] == "0003"
    desk = Desk(open_for_writing(url))
    for name in names:
        for row in before[name]:
            row.pop("wanted", None)
        assert content(desk.engine, name) == before[name]
    assert desk.job(7).state == "waiting"
    assert desk.agent("pi").lease() == []
    assert (desk.job(7).state, desk.job(7).reason) == ("failed", CANCELLED)
    desk.engine.dispose()


def content(engine: sa.Engine, name: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {name}")).mappings()]
