"""A study under check, and what the checks yield: each finding brings its own repair, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from search.store.store import StudyStore
from search.study import OpenStudy


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    check: str  # its kind, in a word or two
    problem: str
    remedy: str  # what the repair does; without a repair, what the user can do
    trial: int | None = None
    repair: Callable[[], object] | None = None  # calling it again changes nothing


@dataclass(frozen=True)
class StudyUnderCheck:
    """A study to look at, with its folder."""

    opened: OpenStudy
    files: Path

    @property
    def store(self) -> StudyStore:
        """The study's store."""
        return self.opened.store

    @property
    def engine(self) -> sa.Engine:
        """The study's database."""
        return self.opened.engine
