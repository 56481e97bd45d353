"""Commands that are printed for the user: as they work in a shell, on the same database.

Nothing heavy is imported before a command is printed.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlalchemy as sa

STORAGE = "CONDENSERY_STORAGE"  # in the environment: a command line can be read by everybody on the machine


DEFAULT = "sqlite:///condensery.db"


def printed_command(words: Sequence[str | Path], url: str | sa.URL | None = None, default: str = DEFAULT) -> str:
    """Return a command line, quoted for a shell, with the option that names the database `url` where one is needed.

    A path that begins with a dash would be read as an option.

    Args:
        words: the command.
        url: of the database; None: none need be named.
        default: the database of a command without the option; "" if a study file in the command may name another.
    """
    plain = [f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words]
    return shlex.join([*plain, *([] if url is None else database_words(url, default))])


def database_words(url: str | sa.URL, default: str = DEFAULT) -> list[str]:
    """Return the option that names a database; none if the environment or the default does.

    The password in a URL is never printed.
    """
    from search.store.connection.database_errors import url_shown

    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    usual = os.environ.get(STORAGE) or default
    return [] if text == usual or _file(text) == _file(usual) is not None else ["--storage", url_shown(text)]


def _file(url: str) -> Path | None:
    kind, _, path = url.partition(":///")
    return Path(path).absolute() if kind == "sqlite" and path and "?" not in path else None
