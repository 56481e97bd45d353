"""Turns a database driver's errors into the project's own, whose messages have the URL without its password."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from search.store.connection.patience import first_line
from space.errors import CondenseryError, DatabaseLocked, DatabaseUnavailable, DiskFull, NotOurDatabase

LEAST_ROOM = 256 << 10  # bytes: no more than a few steps of the log and its index
SECRETS = ("password", "sslpassword")  # of libpq, as parameters of a URL


@contextlib.contextmanager
def driver_errors(url: str) -> Iterator[None]:
    """Turn what the driver raises into ours; other errors pass, for they may be the block's own."""
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
        raise _translated(error, url) from error


@contextlib.contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn what the driver raises into ours, and a URL that can't be used as well."""
    try:
        with driver_errors(url):
            yield
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError) as error:
        if isinstance(error, CondenseryError):
            raise
        raise DatabaseUnavailable(
            f"{url_shown(url)} can't be used as a database URL ({first_line(error)}); for example sqlite:///condensery.db."
        ) from error


def _translated(error: Exception, url: str) -> CondenseryError:
    text = str(getattr(error, "orig", None) or error)
    shown = url_shown(url)
    if "locked" in text or "busy" in text:
        return DatabaseLocked(f"{shown} is locked by another process; wait for it, or stop it, and try again.")
    if "disk is full" in text or "No space left" in text or ("disk I/O error" in text and _has_no_room(url)):
        return DiskFull(f"no space is left for {shown}; free some and run it again with --resume.")
    if "not a database" in text or "malformed" in text:
        return NotOurDatabase(f"{shown} is not a database of Condensery's ({text}); choose another with --storage.")
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return DatabaseUnavailable(
            f"{shown} can't be opened or written ({text}); check the folder and its permissions."
        )
    if "permission denied" in text or "must be owner" in text:
        return DatabaseUnavailable(
            f"{shown} doesn't allow this role that ({first_line(error)}); the tables' owner makes and changes them "
            "with `condensery db upgrade`."
        )
    return DatabaseUnavailable(f"{shown} can't be used: {first_line(error)}")


def _has_no_room(url: str) -> bool:
    """Whether the disk of an SQLite file is full: of its log's index that can't grow SQLite says only "I/O error"."""
    with contextlib.suppress(OSError, exc.ArgumentError):
        folder = Path(sa.make_url(url).database or "x").absolute().parent
        return shutil.disk_usage(folder).free < LEAST_ROOM
    return False


def refuse_unescaped(url: str) -> None:
    """Do nothing unless the password in a URL has an @ that isn't written as %40.

    Raises:
        DatabaseUnavailable: it has. A driver would take the rest of the password for the host, and name it in errors.
    """
    if _is_unescaped(url):
        raise DatabaseUnavailable(
            f"{url_shown(url)}: the password in a URL must have its @ written as %40, its : as %3A and its / as %2F."
        )


def _is_unescaped(url: str) -> bool:
    user, at, rest = url.partition("://")[2].partition("?")[0].partition("@")
    return not url.startswith("sqlite") and ":" in user and bool(at) and "@" in rest


def url_shown(url: str) -> str:
    """Return the URL with its passwords hidden; of an unnamed one just what it is."""
    if url == "sqlite://":
        return "the study database"
    if _is_unescaped(url):
        return re.sub(r"(://[^:]*):[^?]*@", r"\1:***@", url)
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        return repr(re.sub(r":.*@", ":***@", url))
    hidden = {name: "hidden" for name in SECRETS if name in parsed.query}
    if parsed.password is None and not hidden:
        return url
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)
