"""The version of a database's tables: made by Alembic, in a version table of our own.

Optuna's tables live in the same database, and Optuna refuses a database with Alembic's default version table.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from search.store.connection.database_errors import url_shown
from search.store.connection.printed_commands import printed_command
from search.store.tables import FIRST_REVISION, HEAD_REVISION, VERSION_TABLE
from space.errors import DatabaseVersion, NotOurDatabase

MIGRATIONS = Path(__file__).parents[1] / "migrations"
MAKING_TABLES = 1_668_246_627  # an advisory lock of PostgreSQL's: of several processes one makes the tables


def table_names(engine: sa.Engine) -> set[str]:
    """Return the names of the tables that a database holds."""
    return set(sa.inspect(engine).get_table_names())


def has_tables(engine: sa.Engine) -> bool:
    """Whether our tables were made, of whatever version."""
    return VERSION_TABLE in table_names(engine)


def refuse_foreign(engine: sa.Engine, url: str) -> None:
    """Raise NotOurDatabase if a database without our tables holds others than Optuna's."""
    tables = table_names(engine)
    if VERSION_TABLE not in tables and tables - _optuna_tables():
        raise NotOurDatabase(
            f"{url_shown(url)} holds other tables ({', '.join(sorted(tables)[:3])}, …); choose another with --storage."
        )


def _optuna_tables() -> set[str]:
    from optuna.storages._rdb.models import BaseModel

    return set(BaseModel.metadata.tables) | {"alembic_version"}


def revision_of(engine: sa.Engine) -> str:
    """Return the version of our tables; "" where there are none."""
    if not has_tables(engine):
        return ""
    with engine.connect() as connection:
        row = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).first()
    return "" if row is None else str(row[0])


def check_version(engine: sa.Engine, url: str) -> None:
    """Raise DatabaseVersion unless the tables are of this version."""
    revision = revision_of(engine)
    refuse_unknown(revision, url)
    if revision != HEAD_REVISION:
        upgrade = printed_command(["condensery", "db", "upgrade"], url)
        raise DatabaseVersion(
            f"{url_shown(url)} has tables of version {revision or 'none'}, this version needs {HEAD_REVISION}; "
            f"run `{upgrade}`."
        )


def refuse_unknown(revision: str, url: str) -> None:
    """Raise DatabaseVersion if no upgrade leads from a version of the tables to this one."""
    if revision > HEAD_REVISION:  # revisions are numbered
        raise DatabaseVersion(
            f"{url_shown(url)} has tables of version {revision}, newer than this version's {HEAD_REVISION}; "
            "upgrade Condensery."
        )
    if "" < revision < FIRST_REVISION:
        raise DatabaseVersion(
            f"{url_shown(url)} has tables of version {revision}, from before the first release ({FIRST_REVISION}), and "
            "can't be upgraded; choose a new database with --storage."
        )


def migrate(engine: sa.Engine) -> None:
    """Bring our tables to the newest version, making them where there are none, in one transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's transaction has the lock already
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MAKING_TABLES})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
