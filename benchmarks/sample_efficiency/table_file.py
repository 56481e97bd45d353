"""A CSV as rows of text: plain or gzipped, with or without a byte order mark, blank lines at its end ignored."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from space.errors import CondenseryError

Row = Mapping[str, str]


class UnusableTable(CondenseryError):
    """The table, or what is asked of it, can't be replayed; the message says why."""

    exit_code = 2


def rows_of(path: Path) -> list[Row]:
    """Return the rows by the names of their columns.

    Raises:
        UnusableTable: the file can't be read, is no CSV, names a column twice, or a row has more or fewer fields.
    """
    try:
        header, *rows = [*csv.reader(_lines(path))] or [[]]
    except csv.Error as error:
        raise UnusableTable(f"{path} must be a CSV, but: {error}.") from None
    for name in header:
        if header.count(name) > 1:
            raise UnusableTable(f"a column must be in the table once, but {header.count(name)} are named {name!r}.")
    for number, fields in enumerate(rows, start=2):
        if len(fields) != len(header):
            raise UnusableTable(f"line {number} must have {len(header)} fields, but has {len(fields)}.")
    return [dict(zip(header, fields, strict=True)) for fields in rows]


def _lines(path: Path) -> Sequence[str]:
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8-sig")
    except OSError as error:
        raise UnusableTable(f"{path} must be a file that can be read, but: {error.strerror or error}.") from None
    except (UnicodeDecodeError, EOFError, zlib.error):
        raise UnusableTable(f"{path} must be a CSV in UTF-8, plain or gzipped, but is something else.") from None
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
