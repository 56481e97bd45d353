"""The clock that all users of a database share, since times that one machine wrote are compared on another."""

from __future__ import annotations

import time

import sqlalchemy as sa

from workers.clock import Clock


def now_of(connection: sa.Connection, clock: Clock | None = None) -> float:
    """Return the time in UTC seconds: the database server's, the same for every host; without a server this machine's.

    A `clock` that is given is read instead: a simulated one, in a test.
    """
    if clock is not None:
        return clock.now()
    if connection.dialect.name != "postgresql":
        return time.time()
    seconds = connection.scalar(sa.select(sa.func.extract("epoch", sa.func.clock_timestamp())))
    return float(seconds or 0.0)
