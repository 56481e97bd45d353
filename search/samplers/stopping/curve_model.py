"""Trials as the curve rule has seen them, and the model of what their curves become.

Scores and losses are kept as logarithms of what is missing to perfection: from 98 to 99 % is as far as from 80 to 90 %,
so that errors are about as large everywhere, and a straight line tells more of the final score from that of an epoch.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.samplers.stopping.base import score_of_epoch
from search.samplers.stopping.final_accuracy import Floats, Model, Prediction
from search.samplers.stopping.known import as_array
from search.store.rows import TrialRow

STEP = 0.05  # of the schedule: what lies between two verdicts on one training, at least
LOSSES = ("val_loss", "train_loss")
PERFECT = 0.01  # is added to what is missing to a score of 1, so that its logarithm is finite
LEAST_LOSS = 1e-6  # likewise


def logarithm(score: float) -> float:
    """Return a score, from 0 to 1, on the scale of the model, on which more is better; NaN of NaN."""
    return -math.log(max(1 - score, 0.0) + PERFECT)


def score(value: float) -> float:
    """Return the score that lies at a value on the scale of the model."""
    return 1 + PERFECT - math.exp(-value)


@dataclass
class SeenTrial:
    """A trial as the rule knows it."""

    row: TrialRow
    costs: tuple[float, ...]  # macs, then the median latency (ms) on each device that counts
    comparable: tuple[object, ...]  # what two trials' latencies must share to be compared
    facts: Mapping[str, float]
    progress: list[float] = field(default_factory=list)  # of its epochs, at least STEP apart
    measures: list[tuple[float, ...]] = field(default_factory=list)  # score and LOSSES after each, as logarithms
    newest: float = 0.0  # progress of the newest epoch
    final: float | None = None  # deployed score, once it is done
    expected: float | None = None  # score that was predicted for it when it was ended early

    def learn(self, epoch: Mapping[str, Any]) -> None:
        """Keep an epoch, unless it is known or too close to the one before."""
        progress = float(epoch["progress"])
        if progress <= self.newest:
            return
        self.newest = progress
        # The last epoch's accuracy is the deployed network's, and too late to end a training by.
        if progress < 1.0 and (not self.progress or progress >= self.progress[-1] + STEP - 1e-9):
            self.progress.append(progress)
            losses = (math.log(max(float(epoch[name]), LEAST_LOSS)) for name in LOSSES)
            self.measures.append((logarithm(score_of_epoch(epoch, self.row.objective)), *losses))

    def at(self, progress: float) -> list[float]:
        """Return score and LOSSES at any progress, between the epochs by a straight line."""
        place = bisect_left(self.progress, progress)
        if place == len(self.progress) or self.progress[place] == progress or place == 0:
            return list(self.measures[min(place, len(self.progress) - 1)])
        low, high = self.progress[place - 1], self.progress[place]
        share = (progress - low) / (high - low)
        pairs = zip(self.measures[place - 1], self.measures[place], strict=True)
        return [before + share * (after - before) for before, after in pairs]

    def curve(self, at: float, before: float) -> list[float]:
        """Return score and LOSSES at one progress and at an earlier one."""
        return [*self.at(at), *self.at(before)]

    def sees(self, at: float, before: float) -> bool:
        """Whether its curve says anything there; one whose loss became infinite doesn't."""
        return bool(self.progress) and all(map(math.isfinite, self.curve(at, before)))


class CurveModel:
    """Predicts final scores, on the scale of the model, from curves up to some progress and from what is known.

    Args:
        finished: at least three trials with a `final` score.
        ended: trials with an `expected` one, which went on beyond this progress.
        at, before: the progress that curves are read at, from 0 to 1; all have to be finite there.
    """

    def __init__(self, finished: Sequence[SeenTrial], ended: Sequence[SeenTrial], at: float, before: float) -> None:
        known = [*finished, *ended]
        self._place = at, before
        self._names = sorted({name for one in known for name in one.facts})
        scores = [one.final if one.final is not None else one.expected for one in known]
        values = np.array([logarithm(value) for value in scores if value is not None], dtype=np.float64)
        self._model = Model.of(self._features(known), values, len(finished))

    def predict(self, trial: SeenTrial) -> Prediction | None:
        """Return the final score of a trial, as a logarithm; None if its curve isn't finite."""
        if not trial.sees(*self._place):
            return None
        return self._model.predict([one[0] for one in self._features([trial])])

    def _features(self, trials: Sequence[SeenTrial]) -> list[Floats]:
        """Return the sets of features, (n, d) each: curve; curve and sizes; all facts; curve and all facts.

        The sizes, macs and condense factor, are the least to read a curve by.
        """
        curves = np.array([one.curve(*self._place) for one in trials], dtype=np.float64)
        sizes = as_array([one.facts for one in trials], ("macs", "condense_factor"))
        config = as_array([one.facts for one in trials], self._names)
        return [curves, np.hstack([curves, sizes]), config, np.hstack([curves, config])]
