"""A study that is open for picking a network: its database, its devices and its images."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commands.common import say, store_named, stored_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.budget import Budget
    from search.pricing.pricer import Target
    from search.results.picking.picked import Picked
    from search.results.picking.wish import Wish
    from search.settings import StudySettings
    from search.store.rows import StudyRow, TrialRow
    from search.store.store import StudyStore
    from workers.file_names import Precision


@dataclass(frozen=True)
class Opened:
    """A study with the settings that it is picked by: its own, or those of a device that it was repriced on."""

    store: StudyStore
    study: StudyRow
    settings: StudySettings
    url: str  # of the database

    @classmethod
    def named(cls, name: str, url: str) -> Opened:
        """Open a study of a database by its own settings."""
        store, study, _ = store_named(name, url)
        return cls(store, study, stored_settings(study), url)

    @property
    def cache(self) -> Path:
        """The folder of its decoded images."""
        from search.study_folders import cache_folder

        return cache_folder(self.settings, self.url)

    def targets(self) -> tuple[Target, ...]:
        """Return its devices, which measure anew."""
        from search.devices.probe import VERIFYING
        from search.pricing.targets import targets_of
        from search.study_folders import files_root

        files = files_root(self.settings, self.url)
        return targets_of(self.settings, self.store.engine, files, say, VERIFYING)

    def quantize(self, rows: Sequence[TrialRow], precision: Precision) -> None:
        """Put networks into a precision, and record their files as points."""
        from search.results.points import quantize

        with tempfile.TemporaryDirectory(prefix="quantize-") as scratch:
            for _ in quantize(self.store, self.study, rows, self.targets(), self.cache, Path(scratch), say, precision):
                pass

    def pick(self, budget: Budget, wish: Wish, precision: Precision = "fp32") -> Picked:
        """Verify the network that is wanted, and test it."""
        from search.results.picking.picked import pick

        return pick(self.store, self.study, budget, self.targets(), self.cache, wish, precision)
