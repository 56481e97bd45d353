"""What a running search tells whoever watches: the seam between the controller and a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from search.store.rows import TrialRow


class LaunchCallback(Protocol):
    """Watches a launch. Every method returns quickly and never raises; the controller doesn't wait for a screen."""

    def trial(self, row: TrialRow) -> None:
        """A trial is new or has changed its state."""

    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """A trial has finished an epoch; `row` has the columns of `condensery_curve` (epoch, progress, val_top1, …)."""

    def progress(self, done: int, wanted: int) -> None:
        """So many trainings are done of so many wanted."""

    def note(self, text: str) -> None:
        """Something else worth one line."""


class SilentCallback:
    """Shows nothing; for tests and benchmarks."""

    def trial(self, row: TrialRow) -> None:
        """Show nothing."""

    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """Show nothing."""

    def progress(self, done: int, wanted: int) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""
