"""The callback through which a running search shows its progress: the seam between the controller and a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from search.store.rows import TrialRow
from workers.training.reporting import ProgressReport


class LaunchCallback(Protocol):
    """Shows a launch's progress. Methods return quickly and never raise: the controller itself calls them."""

    def trial(self, row: TrialRow) -> None:
        """Show a trial that is new or has changed its state."""

    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """Show an epoch of a trial; `row` has the columns of `condensery_curve` (epoch, progress, val_top1, …)."""

    def under_way(self, number: int, report: ProgressReport) -> None:
        """Show how far a running trial is within an epoch."""

    def progress(self, done: int, wanted: int) -> None:
        """Show how many of the wanted trainings are done."""

    def note(self, text: str) -> None:
        """Show any other news, in one line."""


class SilentCallback:
    """Shows nothing, for tests and benchmarks."""

    def trial(self, row: TrialRow) -> None:
        """Show nothing."""

    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """Show nothing."""

    def under_way(self, number: int, report: ProgressReport) -> None:
        """Show nothing."""

    def progress(self, done: int, wanted: int) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""
