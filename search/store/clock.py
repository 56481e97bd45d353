"""What time it is for everybody who shares a database: rows that one machine wrote are compared on another."""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

Clock = Callable[[], float]


def now_of(connection: sa.Connection, clock: Clock | None = None) -> float:
    """Return the time in UTC seconds: the server's, so that every host means the same; without a server our own.

    A `clock` that is given, as by a test, is asked instead.
    """
    if clock is not None:
        return clock()
    if connection.dialect.name != "postgresql":
        return time.time()
    seconds = connection.scalar(sa.select(sa.func.extract("epoch", sa.func.clock_timestamp())))
    return float(seconds or 0.0)
