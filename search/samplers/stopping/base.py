"""What the controller asks a stopping rule, and the rule that never stops a training.

A rule depends only on what is recorded, and in no other way on the time at which it is asked: a controller that takes
over from another reads the study's trials and curves and decides as that one would have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from search.samplers.stopping.final_accuracy import Prediction
from search.store.rows import TrialRow
from workers.metrics import Objective

Epoch = Mapping[str, Any]  # one row of a learning curve, as in `search.engines.events`
HOPELESS = 0.005  # chance of extending the front, below which no training goes on


class StoppingRule(Protocol):
    """Learns the epochs and the ends of a study's trainings, and says which ones should end early."""

    @property
    def enabled(self) -> bool:
        """Whether the rule needs the study's curves."""

    @property
    def takes_up(self) -> bool:
        """Whether the rule may want a trial that it ended to go on later, from its checkpoint."""

    def observe(self, row: TrialRow, epochs: Sequence[Epoch]) -> None:
        """Learn epochs of a trial, in order and from its first one on; epochs learnt before change nothing."""

    def finish(self, row: TrialRow) -> None:
        """Learn how a trial ended; a trial in any other state than done changes nothing."""

    def forget(self, number: int) -> None:
        """Forget a trial that begins again with other settings."""

    def verdict(self, row: TrialRow) -> str | None:
        """Return why a trial that is under way should end, in one sentence, or None."""

    def predicted_final(self, number: int) -> Prediction | None:
        """Return what a trial's deployed score would be after its whole schedule, judged by its epochs so far.

        So a trial that was stopped still says something about the networks beside it. None if the rule knows no epoch
        of the trial, or too few finished trials to predict from.
        """

    def prospect(self, number: int) -> float:
        """Return the probability, as believed now, that a trial which was ended would extend the front after all.

        0 if the rule can't say.
        """


def score_of_epoch(epoch: Epoch, objective: Objective) -> float:
    """Return what a study maximises as of one epoch; NaN where it isn't recorded."""
    value = epoch.get(f"val_{objective}")
    return math.nan if value is None else float(value)


def expected_score(rule: StoppingRule, row: TrialRow, reached: float) -> float | None:
    """Return the final score, from 0 to 1, that a sampler learns of a trial which its rule ends now.

    That is the rule's prediction or, where it can't predict, the score that was `reached`; None if neither is a number.
    """
    found = rule.predicted_final(row.number)
    value = reached if found is None else found.mean
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else None


class NeverStop:
    """Lets every training run to its end."""

    enabled = takes_up = False

    def observe(self, row: TrialRow, epochs: Sequence[Epoch]) -> None:
        """Do nothing."""

    def finish(self, row: TrialRow) -> None:
        """Do nothing."""

    def forget(self, number: int) -> None:
        """Do nothing."""

    def verdict(self, row: TrialRow) -> str | None:
        """Return None."""
        return None

    def predicted_final(self, number: int) -> Prediction | None:
        """Return None."""
        return None

    def prospect(self, number: int) -> float:
        """Return 0."""
        return 0.0
