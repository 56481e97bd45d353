"""The median rule: a training that has fallen behind cheaper networks is ended early.

Notable choices:
- Curves are compared at rungs: at the same progress of the schedule, not at the same epoch, since trials may differ in
  their epochs. Every network is fully condensed half-way through its schedule, its classifier cut, and loses accuracy
  each time; the rungs lie behind that, so that condensed networks are compared with condensed ones.
- A trial is compared only with those that cost no more: no more macs, and not measurably slower on any device whose
  latency is minimised. A small network is never ended because larger ones are more accurate.
- Among those the median rule applies (Golovin et al. 2017, "Google Vizier", section 3.2.2): a trial that is behind more
  than half of them at the same progress is unlikely to reach the front. Trials that a user enqueued always go on.
- The rule depends only on what is recorded, and is asked at every epoch behind a rung: a controller that takes over
  from another decides as that one would have.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from search.samplers.stopping.base import score_of_epoch
from search.samplers.stopping.final_accuracy import Prediction
from search.store.rows import TrialRow
from search.store.vocabulary import TrialOrigin, TrialState
from workers.metrics import NAMES, Objective

RUNGS = (0.6, 0.8)  # fractions of the schedule
LEAST = 4  # trials to compare with; with fewer, the rule ends nothing


@dataclass(frozen=True)
class _Reached:
    """A trial at a rung."""

    score: float  # after the first epoch that ended at the rung or behind it
    costs: tuple[float, ...]  # macs, then the median latency (ms) on each device that counts


@dataclass
class RungRule:
    """Knows every trial's score at every rung that it has reached."""

    minimised: tuple[str, ...]  # devices
    objective: Objective = "top1"  # what the study maximises: the score
    enabled: ClassVar[bool] = True
    takes_up: ClassVar[bool] = False
    _reached: dict[float, dict[int, _Reached]] = field(default_factory=lambda: {rung: {} for rung in RUNGS})
    _final: dict[int, float] = field(default_factory=dict)  # score of finished trials

    def observe(self, row: TrialRow, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Learn epochs of a trial, in order and from its first one on; epochs learnt before change nothing."""
        for epoch in epochs:
            for rung in RUNGS:
                if rung <= epoch["progress"] < 1.0 and row.number not in self._reached[rung]:
                    self._count(row, rung, score_of_epoch(epoch, self.objective))

    def _count(self, row: TrialRow, rung: float, score: float) -> None:
        if all(device in row.latencies for device in self.minimised):
            medians = [row.latencies[device].median_ms for device in self.minimised]
            self._reached[rung][row.number] = _Reached(score, (float(row.macs), *medians))

    def finish(self, row: TrialRow) -> None:
        """Learn what a trial ended with, by which others' ends are predicted."""
        if row.state == TrialState.DONE and row.score is not None:
            self._final[row.number] = row.score

    def forget(self, number: int) -> None:
        """Forget a trial that begins again with other settings."""
        for reached in self._reached.values():
            reached.pop(number, None)
        self._final.pop(number, None)

    def verdict(self, row: TrialRow) -> str | None:
        """Return why a trial that is under way should end, or None."""
        rung = max((rung for rung in RUNGS if row.number in self._reached[rung]), default=None)
        if rung is None or row.origin == TrialOrigin.ENQUEUED:
            return None
        reached = self._reached[rung]
        highest = [row.latencies[device].interval_high_ms for device in self.minimised]
        limits = (float(row.macs), *highest)
        ahead = [
            other.score
            for number, other in reached.items()
            if number != row.number and all(cost <= limit for cost, limit in zip(other.costs, limits, strict=True))
        ]
        mine = reached[row.number].score
        if len(ahead) < LEAST or mine >= (median := statistics.median(ahead)):
            return None
        return (
            f"ended early: {NAMES[self.objective]} {100 * mine:.1f} % at {100 * rung:.0f} % of its schedule, while the "
            f"median of {len(ahead)} networks that cost no more was {100 * median:.1f} %"
        )

    def predicted_final(self, number: int) -> Prediction | None:
        """Return a trial's score at its newest rung plus what finished trials gained from there on, as the median.

        None if fewer than two of them are known.
        """
        rung = max((rung for rung in RUNGS if number in self._reached[rung]), default=None)
        if rung is None:
            return None
        reached = self._reached[rung]
        gains = [score - reached[other].score for other, score in self._final.items() if other in reached]
        if len(gains) < 2:
            return None
        return Prediction(reached[number].score + statistics.median(gains), statistics.stdev(gains), len(gains) - 1.0)

    def prospect(self, number: int) -> float:
        """Return 0: among networks that cost no more, a trial that is behind doesn't get ahead by waiting."""
        return 0.0
