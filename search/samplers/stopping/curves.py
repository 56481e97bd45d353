"""A stopping rule for several objectives: a training ends when its network would not get onto the front anyway.

Notable choices:
- Only accuracy is uncertain. What a network costs is known before it is trained, so the rule asks how accurate it would
  have to be: more than every finished network that costs no more, in macs and on each device whose latency counts.
- It ends when even an optimistic guess of its final accuracy is no better than that. `final_accuracy` predicts it from
  the curve so far and from what is known of the network, by the study's own finished trainings at the same progress.
- Costs are compared by their medians, as the front compares them. With their intervals, which are wide for estimated
  latencies, a network that is faster by the median would be ended by a slower one.
- Only finished trainings set the bar, and only they teach the model: the accuracy of any other one is a guess.
- A training that is ahead of all networks that set its bar, at the same progress, goes on whatever the model says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.results.pareto import latency_key
from search.samplers.stopping.base import score_of_epoch
from search.samplers.stopping.final_accuracy import Floats, Prediction, predict
from search.samplers.stopping.known import as_array, facts
from search.store.rows import TrialRow
from search.store.vocabulary import TrialOrigin, TrialState
from workers.metrics import NAMES, Objective

CHANCES = {"conservative": 0.99, "aggressive": 0.95}  # that a network ends below its optimistic accuracy
LEAST = 8  # finished trainings; with fewer, the rule ends nothing
NEWEST = 500  # finished trainings that the model is fitted on, so that a verdict takes milliseconds in any study
STEP = 0.05  # of the schedule: what lies between two verdicts on one training, at least
LOSSES = ("val_loss", "train_loss")


@dataclass
class _Trial:
    """A trial as the rule knows it."""

    row: TrialRow
    costs: tuple[float, ...]  # macs, then the median latency (ms) on each device that counts
    comparable: tuple[object, ...]  # what two trials' latencies must share to be compared
    facts: Mapping[str, float]
    progress: list[float] = field(default_factory=list)  # of its epochs, at least STEP apart
    measures: list[tuple[float, ...]] = field(default_factory=list)  # score and LOSSES after each of them
    newest: float = 0.0  # progress of the newest epoch
    final: float | None = None  # deployed score, once it is done

    def learn(self, epoch: Mapping[str, Any]) -> None:
        """Keep an epoch, unless it is known or too close to the one before."""
        progress = float(epoch["progress"])
        if progress <= self.newest:
            return
        self.newest = progress
        # The last epoch's accuracy is the deployed network's, and too late to end a training by.
        if progress < 1.0 and (not self.progress or progress >= self.progress[-1] + STEP - 1e-9):
            self.progress.append(progress)
            losses = (float(epoch[name]) for name in LOSSES)
            self.measures.append((score_of_epoch(epoch, self.row.objective), *losses))

    def at(self, progress: float) -> list[float]:
        """Return score and LOSSES at any progress, between the epochs by a straight line."""
        place = bisect_left(self.progress, progress)
        if place == len(self.progress) or self.progress[place] == progress or place == 0:
            return list(self.measures[min(place, len(self.progress) - 1)])
        low, high = self.progress[place - 1], self.progress[place]
        share = (progress - low) / (high - low)
        pairs = zip(self.measures[place - 1], self.measures[place], strict=True)
        return [before + share * (after - before) for before, after in pairs]


class CurveRule:
    """Ends trainings whose optimistic final accuracy would not extend the front; see the module."""

    enabled = takes_up = True

    def __init__(self, minimised: Sequence[str], chance: float, objective: Objective = "top1") -> None:
        """Compare on these devices besides macs; a network ends below its optimistic accuracy by this `chance`."""
        self.minimised, self.chance, self._name = tuple(minimised), chance, NAMES[objective]
        self._trials: dict[int, _Trial] = {}
        self._finished: list[int] = []  # numbers, ascending

    # -- learning --

    def observe(self, row: TrialRow, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Learn epochs of a trial, in order and from its first one on; epochs learnt before change nothing."""
        trial = self._trials.get(row.number) or self._new(row)
        if trial is not None:
            for epoch in epochs:
                trial.learn(epoch)

    def _new(self, row: TrialRow) -> _Trial | None:
        """Begin to keep a trial; None if it was never priced on every device that counts."""
        latencies = row.latencies
        if not all(device in latencies for device in self.minimised):
            return None
        counted = [latencies[device] for device in self.minimised]
        costs = (float(row.macs), *(latency.median_ms for latency in counted))
        trial = _Trial(row, costs, tuple(latency_key(latency) for latency in counted), facts(row))
        self._trials[row.number] = trial
        return trial

    def finish(self, row: TrialRow) -> None:
        """Learn how a trial ended; a trial in any other state than done changes nothing."""
        trial = self._trials.get(row.number)
        if trial is None or trial.final is not None or row.state != TrialState.DONE or row.score is None:
            return
        trial.final = row.score
        self._finished.insert(bisect_left(self._finished, row.number), row.number)

    def forget(self, number: int) -> None:
        """Forget a trial that begins again with other settings."""
        self._trials.pop(number, None)

    # -- judging --

    def verdict(self, row: TrialRow) -> str | None:
        """Return why a trial that is under way should end, or None; only an epoch that was kept can end it."""
        mine = self._trials.get(row.number)
        if row.origin == TrialOrigin.ENQUEUED or mine is None or not mine.progress or mine.progress[-1] < mine.newest:
            return None
        bar = self._bar(mine)
        best = max(bar, key=lambda other: (other.final or 0.0, -other.row.number), default=None)
        if best is None or best.final is None or self._is_ahead(mine, bar):
            return None
        found = self.predicted_final(row.number)
        if found is None or (optimistic := found.quantile(self.chance)) > best.final:
            return None
        return (
            f"ended early: at {100 * mine.progress[-1]:.0f} % of its schedule its final {self._name} is expected to be "
            f"{100 * found.mean:.1f} % (with {100 * self.chance:g} % certainty below {100 * optimistic:.1f} %), while "
            f"trial {best.row.number} reached {100 * best.final:.1f} % and costs no more"
        )

    def predicted_final(self, number: int) -> Prediction | None:
        """Return a trial's predicted deployed score by its epochs so far; see `base.StoppingRule`."""
        mine = self._trials.get(number)
        known = [other for other in self._done(NEWEST + 1) if other.progress and other is not mine][-NEWEST:]
        if mine is None or not mine.progress or len(known) < LEAST:
            return None
        curves = np.array([self._curve(other, mine) for other in (*known, mine)])
        config = as_array([other.facts for other in (*known, mine)])
        sizes = _sizes(known, mine)
        final = np.array([other.final for other in known], dtype=np.float64)
        sets = [np.hstack([curves, sizes]), np.hstack([curves, config])]
        return predict([one[:-1] for one in sets], final, [one[-1] for one in sets])

    def prospect(self, number: int) -> float:
        """Return the probability that an ended trial would extend the front after all; see `base.StoppingRule`."""
        mine = self._trials.get(number)
        found = None if mine is None else self.predicted_final(number)
        if mine is None or found is None:
            return 0.0
        best = max((other.final or 0.0 for other in self._bar(mine)), default=0.0)
        return found.above(best)

    def _bar(self, mine: _Trial) -> list[_Trial]:
        """Return the finished trials that cost no more than one, all of which it has to beat."""
        return [other for other in self._done() if other.comparable == mine.comparable and _no_more(other, mine)]

    def _done(self, newest: int | None = None) -> Iterable[_Trial]:
        numbers = self._finished if newest is None else self._finished[-newest:]
        return (self._trials[number] for number in numbers if number in self._trials)

    @staticmethod
    def _is_ahead(mine: _Trial, bar: Sequence[_Trial]) -> bool:
        """Whether a trial's score is above that of every cheaper one at the same progress."""
        return all(mine.measures[-1][0] > other.at(mine.progress[-1])[0] for other in bar if other.progress)

    @staticmethod
    def _curve(of: _Trial, mine: _Trial) -> list[float]:
        """Return score and LOSSES of a trial at another's newest progress and at the epoch before that."""
        before = mine.progress[-2:][0]
        return [*of.at(mine.progress[-1]), *of.at(before)]


def _sizes(known: Sequence[_Trial], mine: _Trial) -> Floats:
    """Return (n + 1, 2): of each network the logarithms of macs and condense factor, the least to read a curve by."""
    return np.array([[one.facts["macs"], one.facts["condense_factor"]] for one in (*known, mine)])


def _no_more(other: _Trial, mine: _Trial) -> bool:
    return all(cost <= limit for cost, limit in zip(other.costs, mine.costs, strict=True))
