"""The shortlist: which trials a user starred, and what they noted about them; one row for each such trial."""

from __future__ import annotations

import unicodedata
from typing import Any

import sqlalchemy as sa

from search.store.connection.transactions import Transactions
from search.store.tables import note
from space.errors import InvalidSettings

LONGEST_NOTE = 2000  # characters
_FIND = sa.select(note).where(note.c.trial_id == sa.bindparam("key"))
_ADD, _FORGET = sa.insert(note), sa.delete(note).where(note.c.trial_id == sa.bindparam("key"))
_CHANGE = sa.update(note).where(note.c.trial_id == sa.bindparam("key"))


class Notes(Transactions):
    """The part of a study's store that keeps stars and notes. Any process may write them, whoever runs the study."""

    def set_star(self, number: int, is_starred: bool) -> None:
        """Star a trial, which must exist, or take its star away."""
        self._set_note(number, starred=is_starred)

    def set_note(self, number: int, text: str, before: str | None = None) -> str | None:
        """Note a text about a trial, which must exist, in place of the text before; "" takes it away.

        Args:
            number: of the trial.
            text: what is noted; see `valid_note`.
            before: the text that the writer has seen. None: whatever it is.

        Returns:
            None, or the text that was noted meanwhile and stays, because it isn't `before`.
        """
        with self._begin() as connection:
            row = connection.execute(_FIND, {"key": self._key(connection, number)}).first()
            now = "" if row is None else row.text
            if before is not None and now not in ("", before, text):
                return str(now)
            self._write(connection, number, row, text=text)
        return None

    def clear_note(self, number: int) -> None:
        """Take a trial's star and note away."""
        with self._begin() as connection:
            connection.execute(_FORGET, {"key": self._key(connection, number)})

    def _set_note(self, number: int, **values: Any) -> None:
        with self._begin() as connection:
            row = connection.execute(_FIND, {"key": self._key(connection, number)}).first()
            self._write(connection, number, row, **values)

    def _write(self, connection: sa.Connection, number: int, row: sa.Row[Any] | None, **values: Any) -> None:
        key = self._key(connection, number)
        before = {"starred": False, "text": ""} if row is None else {"starred": row.starred, "text": row.text}
        after = {**before, **values}
        if after == before:
            return
        if after == {"starred": False, "text": ""}:
            connection.execute(_FORGET, {"key": key})
        elif row is None:
            connection.execute(_ADD, {"trial_id": key, **after, "changed_at": self.clock.now()})
        else:
            connection.execute(_CHANGE, {"key": key, **after, "changed_at": self.clock.now()})


def valid_note(text: str) -> str:
    """Return a note as it is kept: without spaces at its ends and at the ends of its lines.

    Raises:
        InvalidSettings: it is too long, or has characters that no terminal or database should be given.
    """
    kept = "\n".join(line.rstrip() for line in text.splitlines()).strip()
    if len(kept) > LONGEST_NOTE:
        raise InvalidSettings(
            f"a note must have at most {LONGEST_NOTE:,} characters, but has {len(kept):,}; shorten it."
        )
    odd = next((c for c in kept if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs")), None)
    if odd is not None:
        raise InvalidSettings(f"a note must be plain text, but holds the control character {odd!r}; remove it.")
    return kept
