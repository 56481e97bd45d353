"""The table that says what a chart says: for readers who can't see the chart, and for exact numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from workers.wording import agreeing

MOST_ROWS = 200  # of a chart's table; the trials table has them all


@dataclass(frozen=True)
class DataTable:
    """What a chart shows, as a table of text; rows beyond `MOST_ROWS` are only counted."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = ()
    left_out: int = 0

    @classmethod
    def of(cls, headers: Sequence[str], rows: Iterable[Sequence[str]], total: int) -> DataTable:
        """Return the first `MOST_ROWS` of an iterable that would yield `total` rows."""
        first = tuple(tuple(row) for row in islice(rows, MOST_ROWS))
        return cls(tuple(headers), first, max(0, total - len(first)))

    @property
    def rest(self) -> str:
        """The sentence about the rows that are left out; empty when none is."""
        if not self.left_out:
            return ""
        return f"{self.left_out:,} more {agreeing(self.left_out, 'is', 'are')} not listed here."

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as page and report take them."""
        return {"headers": self.headers, "rows": self.rows, "rest": self.rest}
