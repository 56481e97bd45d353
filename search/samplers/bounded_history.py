"""The history that a sampler sees: all of a study while it is short, later only its best and its newest trials.

TPE looks at every finished trial at every proposal, which takes 50 times as long at 10,000 trials as at 100. It splits
them into the 25 best (by fronts) and the rest. This history shows it 25 of the best, spread over the front: choosing
them from a long front is most of what TPE's own split costs. Of the rest it shows the newest, which TPE's weights
prefer anyway.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.results.pareto import non_dominated

SHOWN = 192  # finished trials; `docs/experiments.md` compares
SLACK = 32  # further trials that may end before the shown ones are chosen again
BEST = 25  # of the shown trials, at most this many are chosen for their values: as many as TPE models


class BoundedHistory(InMemoryStorage):
    """Optuna's storage in memory for one study; its lists of trials omit those that a sampler need not see."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = 0  # trials that `_open` and `_past` know
        self._open: list[int] = []  # numbers
        self._past: list[FrozenTrial] = []  # finished ones that samplers look at, by number

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the open trials and the shown ones of the finished, by number; failed ones are never shown."""
        if states == (TrialState.WAITING,):  # asked before every proposal, and quick
            return super().get_all_trials(study_id, deepcopy, states)
        with self._lock:
            every = self._studies[study_id].trials
            self._open += range(self._seen, len(every))
            self._seen = len(every)
            ended = [every[number] for number in self._open if every[number].state.is_finished()]
            if ended:
                self._open = [number for number in self._open if not every[number].state.is_finished()]
                self._past += [trial for trial in ended if trial.state != TrialState.FAIL]
                if len(self._past) > SHOWN + SLACK:
                    self._past = shown(self._past, self._studies[study_id].directions)
                self._past.sort(key=lambda trial: trial.number)
            trials = sorted([*self._past, *(every[number] for number in self._open)], key=lambda trial: trial.number)
            if states is not None:
                trials = [trial for trial in trials if trial.state in states]
            return copy.deepcopy(trials) if deepcopy else trials


def shown(past: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """Return `SHOWN` of the past trials: up to `BEST` spread over the first fronts, then the newest."""
    by_age = sorted(past, key=lambda trial: trial.number, reverse=True)
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    remaining = [trial for trial in by_age if trial.state == TrialState.COMPLETE]
    best: list[FrozenTrial] = []
    while remaining and len(best) < BEST:
        front = non_dominated(np.array([trial.values for trial in remaining]) * signs)
        members = [trial for trial, kept in zip(remaining, front, strict=True) if kept]
        apart = np.argsort(-crowding(np.array([trial.values for trial in members])), kind="stable")
        best += [members[place] for place in apart[: BEST - len(best)]]
        remaining = [trial for trial, kept in zip(remaining, front, strict=True) if not kept]
        if not front.any():  # only NaN remains
            break
    chosen = {trial.number for trial in best}
    newest = [trial for trial in by_age if trial.number not in chosen]
    return best + newest[: SHOWN - len(best)]


def crowding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each row of a front (n, m) is from its neighbours; infinite for the ends of each objective.

    Source: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", section III-B.
    """
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if spread > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance
