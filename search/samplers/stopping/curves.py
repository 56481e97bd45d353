"""A stopping rule for several objectives: a training ends when its network would hardly get onto the front.

Notable choices:
- Only accuracy is uncertain. What a network costs is known before it is trained, so the rule asks how accurate it would
  have to be: more than every finished network that costs no more, in macs and on each device whose latency counts.
- `final_accuracy` predicts how accurate it will be, from the curve so far and from what is known of the network, by the
  study's own trainings at the same progress. What matters is the chance that it is accurate enough.
- A training ends when that chance is less than the rest of its schedule asks for: a constant times the share of the
  schedule that is left. So most end early, where ending saves the most, and on a chance that is still considerable:
  one that was ended can be taken up from its checkpoint, and is before the search ends, unless it has become hopeless.
- One that was taken up is ended only when it is hopeless, so that it isn't ended and taken up again and again.
- The model sees scores and losses by the logarithm of what is missing to perfection. From 98 to 99 % it is as far as
  from 80 to 90 %, and errors are about as large everywhere.
- Costs are compared by their medians, as the front compares them. With their intervals, which are wide for estimated
  latencies, a network that is faster by the median would be ended by a slower one.
- Only finished trainings set the bar. Those that were ended teach the model what earlier epochs are worth, by the score
  that was predicted, and recorded, when they were ended: else it would know only curves that went on.
- A training that is ahead of all networks that set its bar, at the same progress, goes on whatever the model says.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from search.results.pareto import latency_key
from search.samplers.stopping.base import HOPELESS
from search.samplers.stopping.curve_model import PERFECT, CurveModel, SeenTrial, logarithm, score
from search.samplers.stopping.final_accuracy import Floats, Prediction
from search.samplers.stopping.known import facts
from search.store.rows import TrialRow
from search.store.vocabulary import TrialOrigin, TrialState
from workers.metrics import NAMES, Objective

CHANCES = {"conservative": 0.1, "aggressive": 0.4}  # of extending the front, that a whole schedule asks for
LEAST = 8  # finished trainings; with fewer, the rule ends nothing
NEWEST = 500  # trainings that the model is fitted on, so that a verdict takes milliseconds in any study


class CurveRule:
    """Ends trainings whose chance of extending the front isn't worth the rest of their schedule; see the module."""

    enabled = takes_up = True

    def __init__(self, minimised: Sequence[str], chance: float, objective: Objective = "top1") -> None:
        """Compare on these devices besides macs; a whole schedule asks for this `chance` of extending the front."""
        self.minimised, self.chance, self._name = tuple(minimised), chance, NAMES[objective]
        self._trials: dict[int, SeenTrial] = {}
        self._finished: list[int] = []  # numbers, ascending
        self._ended: list[int] = []  # likewise: of those that were ended early and not taken up
        # Kept until another trial ends:
        self._models: dict[tuple[float, float], CurveModel | None] = {}  # by progress, now and an epoch before
        self._rivals: tuple[list[SeenTrial], Floats] | None = None  # the n finished ones, and their costs, (n, k)

    # -- learning --

    def observe(self, row: TrialRow, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Learn epochs of a trial, in order and from its first one on; epochs learnt before change nothing."""
        trial = self._trials.get(row.number) or (self._new(row) if epochs else None)
        if trial is not None:
            for epoch in epochs:
                trial.learn(epoch)

    def _new(self, row: TrialRow) -> SeenTrial | None:
        """Begin to keep a trial; None if it was never priced on every device that counts."""
        latencies = row.latencies
        if not all(device in latencies for device in self.minimised):
            return None
        counted = [latencies[device] for device in self.minimised]
        costs = (float(row.macs), *(latency.median_ms for latency in counted))
        trial = SeenTrial(row, costs, tuple(latency_key(latency) for latency in counted), facts(row))
        self._trials[row.number] = trial
        if row.continues in self._ended:  # the curve of both is the same
            self._ended.remove(row.continues)
            self._changed()
        return trial

    def finish(self, row: TrialRow) -> None:
        """Learn how a trial ended: done, or early; a trial in any other state changes nothing."""
        trial = self._trials.get(row.number)
        if trial is None or trial.final is not None or trial.expected is not None:
            return
        if row.state == TrialState.DONE and row.score is not None:
            trial.final = row.score
            insort(self._finished, row.number)
        elif row.state == TrialState.PRUNED and row.expected_score is not None:
            trial.expected = row.expected_score
            insort(self._ended, row.number)
        self._changed()

    def forget(self, number: int) -> None:
        """Forget a trial that begins again with other settings."""
        self._trials.pop(number, None)
        self._changed()

    def _changed(self) -> None:
        self._models.clear()
        self._rivals = None

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
        found = self._predicted(mine)
        asked = HOPELESS if row.continues is not None else self.chance * (1 - mine.progress[-1])
        if found is None or (chance := found.above(logarithm(best.final))) >= asked:
            return None
        small = f"{100 * chance:.2g} %" if chance >= 1e-4 else "below 0.01 %"
        return (
            f"ended early: at {100 * mine.progress[-1]:.0f} % of its schedule its final {self._name} is expected to be "
            f"{100 * score(found.mean):.1f} %, while trial {best.row.number} reached {100 * best.final:.1f} % and "
            f"costs no more; its chance of more is {small}, and the rest of its schedule asks for {100 * asked:.2g} %"
        )

    def predicted_final(self, number: int) -> Prediction | None:
        """Return a trial's predicted deployed score by its epochs so far; see `base.StoppingRule`."""
        mine = self._trials.get(number)
        found = None if mine is None else self._predicted(mine)
        if found is None:
            return None
        mean = score(found.mean)
        return Prediction(mean, found.spread * (1 + PERFECT - mean), found.freedom)

    def prospect(self, number: int) -> float:
        """Return the probability that an ended trial would extend the front after all; see `base.StoppingRule`."""
        mine = self._trials.get(number)
        found = None if mine is None else self._predicted(mine)
        if mine is None or found is None:
            return 0.0
        best = max((other.final or 0.0 for other in self._bar(mine)), default=0.0)
        return found.above(logarithm(best))

    def _bar(self, mine: SeenTrial) -> list[SeenTrial]:
        """Return the finished trials that cost no more than one, all of which it has to beat."""
        if self._rivals is None:
            finished = self._known(self._finished)
            self._rivals = finished, np.array([other.costs for other in finished], ndmin=2)
        finished, costs = self._rivals
        cheaper = np.flatnonzero((costs <= mine.costs).all(axis=1)) if finished else ()
        return [finished[place] for place in cheaper if finished[place].comparable == mine.comparable]

    def _known(self, numbers: Iterable[int]) -> list[SeenTrial]:
        return [self._trials[number] for number in numbers if number in self._trials]

    @staticmethod
    def _is_ahead(mine: SeenTrial, bar: Sequence[SeenTrial]) -> bool:
        """Whether a trial's score is above that of every cheaper one at the same progress."""
        return all(mine.measures[-1][0] > other.at(mine.progress[-1])[0] for other in bar if other.progress)

    # -- predicting --

    def _predicted(self, mine: SeenTrial) -> Prediction | None:
        """Return a trial's predicted score, as a logarithm; None if nothing can be said."""
        if not mine.progress:
            return None
        place = mine.progress[-1], mine.progress[-2:][0]
        if place not in self._models:
            self._models[place] = self._model(*place)
        model = self._models[place]
        return None if model is None else model.predict(mine)

    def _model(self, at: float, before: float) -> CurveModel | None:
        """Return the model of curves up to some progress; None if too few trainings have finished."""
        finished = [one for one in self._known(self._finished) if one.sees(at, before)][-NEWEST:]
        beyond = [one for one in self._known(self._ended) if one.progress[-1] > at and one.sees(at, before)]
        if len(finished) < LEAST:
            return None
        room = NEWEST - len(finished)
        return CurveModel(finished, beyond[-room:] if room else [], at, before)
