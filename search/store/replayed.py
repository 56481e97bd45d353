"""That a study was replayed from a table of recorded trainings, in the words that stand beside its figures everywhere.

Terminal, JSON, CSV, charts, page, report, log lines and event files all take them from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LONGEST_NAME = 80  # letters of a table's path; the end of a longer one is shown, which is what tells tables apart


def replayed_from(settings: Mapping[str, Any]) -> str | None:
    """Return the table that a study was replayed from; None if its networks were really trained.

    A shipped table has a name; any other is shown by its path, whatever its file is called.
    """
    part = settings.get("replay")
    table = part.get("table") if isinstance(part, Mapping) else None
    if not table:
        return None
    name = "".join(letter for letter in str(table) if letter.isprintable())
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def replayed_words(table: str | None) -> str:
    """Return "replayed from TABLE"; "" for no table."""
    return "" if table is None else f"replayed from {table}"


def replayed_note(table: str | None) -> str:
    """Return the words and what they mean for every figure beside them; "" for no table.

    The networks of a replayed study can be measured on a further device, and then those latencies are real.
    """
    rest = "nothing was trained here, and latencies that are called replayed were not measured here"
    return "" if table is None else f"{replayed_words(table)}: {rest}"


def replayed_folder(table: str | None) -> str:
    """Return the words as the name of a folder, such as replayed-from-condensebench; "" for no table."""
    name = "" if table is None else table.rpartition("/")[2]
    return re.sub(r"[^\w.-]+", "-", replayed_words(name or None)).strip("-")
