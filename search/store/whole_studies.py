"""Every row of one study as plain values that JSON can hold, and such rows back into a database.

Which tables belong to studies follows from their foreign keys, so a new one is among them without being named here.
Keys that a database gave to rows are of that database alone: rows get new ones, and what refers to them follows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

import sqlalchemy as sa

from search.store.studies import new_id
from search.store.tables import Word, latency, metadata, study, trial

Values: TypeAlias = dict[str, Any]
_AT_ONCE = 1000  # rows in a statement
_NEW = {  # values that are of the database that a study was in
    study.name: {"stop_requested": False, "controller": None, "controller_seen_at": None},
    trial.name: {"optuna_trial_id": None, "mirrored": False, "latency_id": None},
}


@cache
def tables_of_studies() -> tuple[sa.Table, ...]:
    """Return the tables that hold rows of studies, each behind those that it refers to."""
    belonging = [study]
    for table in metadata.sorted_tables:
        if any(key.column.table in belonging for key in table.foreign_keys):
            belonging.append(table)
    return tuple(belonging)


def read_rows(connection: sa.Connection, table: sa.Table, study_id: int) -> Iterator[Values]:
    """Yield a table's rows of one study, oldest first, as values that JSON can hold."""
    order = list(table.primary_key)
    for row in connection.execute(sa.select(table).where(_of_study(table, study_id)).order_by(*order)):
        yield {column.name: _plain(value) for column, value in zip(table.columns, row, strict=True)}


def _of_study(table: sa.Table, study_id: int) -> sa.ColumnElement[bool]:
    if table is study:
        return study.c.id == study_id
    (key,) = (key for key in table.foreign_keys if key.column.table in tables_of_studies())
    if key.column.table is study:
        return key.parent == study_id
    parent = key.column.table
    return key.parent.in_(sa.select(parent.c.id).where(_of_study(parent, study_id)))


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def insert_rows(
    connection: sa.Connection, rows_of: Callable[[sa.Table], Iterable[Mapping[str, Any]]], own: Mapping[str, Any]
) -> int:
    """Insert a study's rows; return the study's key.

    Args:
        connection: in a transaction.
        rows_of: yields a table's rows, as `read_rows` gave them.
        own: columns of the study's row that are of this database: its name, settings and key in Optuna's tables.

    Raises:
        ValueError: a row isn't one of its table: a column is missing or unknown, or a value of another type.
        sqlalchemy.exc.IntegrityError: two rows have one key.
    """
    keys: dict[str, dict[int, int]] = {}  # by table: the key that a row had, and the one it has now
    judged: dict[int, int] = {}  # by a trial's key: that which its latency had
    for table in tables_of_studies():
        rows: Iterator[Values] = (_valid(table, row) for row in rows_of(table))
        if table is study:
            rows = ({**row, **own} for row in rows)
        if table is trial:
            rows = _noting(rows, judged)
        rows = ({**_referring(table, row, keys), **_NEW.get(table.name, {})} for row in rows)
        keys[table.name] = _insert(connection, table, rows)
    if len(keys[study.name]) != 1:
        raise ValueError(f"it must hold one study, but holds {len(keys[study.name])}")
    for old, latency_id in judged.items():
        changed = sa.update(trial).where(trial.c.id == keys[trial.name][old])
        connection.execute(changed.values(latency_id=_key(keys, latency, latency_id)))
    (new,) = keys[study.name].values()
    return new


def _noting(rows: Iterable[Values], judged: dict[int, int]) -> Iterator[Values]:
    for row in rows:
        if row["latency_id"] is not None:
            judged[row["id"]] = row["latency_id"]
        yield row


def _referring(table: sa.Table, row: Values, keys: Mapping[str, Mapping[int, int]]) -> Values:
    """Return a row whose references lead to where the rows are now."""
    moved = {
        key.parent.name: _key(keys, key.column.table, row[key.parent.name])
        for key in table.foreign_keys
        if key.column.table.name in keys
    }
    return {**row, **moved}


def _key(keys: Mapping[str, Mapping[int, int]], table: sa.Table, old: int) -> int:
    try:
        return keys[table.name][old]
    except KeyError:
        raise ValueError(f"a row refers to row {old} of {table.name}, which isn't there") from None


def _insert(connection: sa.Connection, table: sa.Table, rows: Iterable[Values]) -> dict[int, int]:
    """Insert rows; return their new keys by their old ones where the database gives keys and rows refer to them."""
    if table in (study, trial, latency):
        keys: dict[int, int] = {}
        for row in rows:
            old = row.pop("id")
            if old in keys:
                raise ValueError(f"two rows of {table.name} are called {old}")
            keys[old] = new_id(connection.execute(sa.insert(table), row))
        return keys
    waiting: list[Values] = []
    for row in rows:
        waiting.append({name: value for name, value in row.items() if name != "id"})
        if len(waiting) == _AT_ONCE:
            connection.execute(sa.insert(table), waiting)
            waiting = []
    if waiting:
        connection.execute(sa.insert(table), waiting)
    return {}


def _valid(table: sa.Table, row: Mapping[str, Any]) -> Values:
    """Return a row's values as the database takes them; columns that came later, and may be empty, may lack."""
    if unknown := set(row) - set(table.columns.keys()):
        raise ValueError(f"{table.name} has no column {min(unknown)!r}")
    return {column.name: _valid_value(table, column, row.get(column.name)) for column in table.columns}


def _valid_value(table: sa.Table, column: sa.Column[Any], value: Any) -> Any:
    if value is None:
        if column.nullable:
            return None
        raise ValueError(f"{table.name}.{column.name} must hold something, but is empty")
    if isinstance(column.type, sa.LargeBinary):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise ValueError(f"{table.name}.{column.name} must be base64") from None
    kind = str if isinstance(column.type, Word) else column.type.python_type
    kinds = (float, int) if kind is float else (kind,)
    if type(value) not in kinds:
        raise ValueError(f"{table.name}.{column.name} must be {kind.__name__}, but is {type(value).__name__}")
    if isinstance(value, str):
        longest = getattr(column.type, "length", None)
        if "\0" in value or (longest is not None and len(value) > longest):
            raise ValueError(f"{table.name}.{column.name} must be at most {longest} letters, none of them a zero byte")
        if isinstance(column.type, Word):
            column.type.vocabulary(value)
    if type(value) is int and abs(value) > (2**63 - 1 if isinstance(column.type, sa.BigInteger) else 2**31 - 1):
        raise ValueError(f"{table.name}.{column.name} must be a smaller number")
    return value
