"""What the sampler believes while it chooses: where the front is going to be, and what it would propose next.

Everything here follows from what one proposal has computed anyway, so that looking at it costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.price_aware.accuracy import Believed
from search.samplers.price_aware.known import Priced
from search.samplers.price_aware.model import Judged, Model
from search.samplers.price_aware.pool import Params
from search.store.vocabulary import ProposalReason

Array = NDArray[np.float64]

MOST_MEMBERS = 24  # of the predicted front, for each cost
AHEAD = 4  # candidates that are named as the next ones
PROMISING = 200  # candidates among which these are looked for


@dataclass(frozen=True)
class Choice:
    """A candidate, why it is chosen, and what was believed of it; without a model nothing was."""

    params: Params
    reason: ProposalReason
    mean: float | None = None  # value of the objective that its training is expected to reach: the median
    deviation: float | None = None  # of that; half of what two thirds of its trainings would lie within
    gain: float | None = None  # the hypervolume that it is expected to add, as a share of the front's


@dataclass(frozen=True)
class Belief:
    """What is believed after so many trainings."""

    trainings: int
    front: tuple[Choice, ...]  # untrained candidates that none is believed to beat in accuracy at no more of one cost
    ahead: tuple[Choice, ...]  # what would be proposed next, the first of them first


@dataclass(frozen=True)
class Turns:
    """Which proposals are for accuracy alone."""

    proposals: int  # of the sampler so far
    every: int  # how many proposals one of them is; 0: there is none

    def is_for_accuracy(self, ahead: int = 0) -> bool:
        """Whether the next proposal is one, or the one that comes so many after it."""
        return self.every > 0 and (self.proposals + ahead) % self.every == self.every - 1


@dataclass(frozen=True)
class View:
    """The candidates of one proposal as a model judges them; the one with the largest score is proposed."""

    model: Model
    priced: Priced
    judged: Judged
    turns: Turns
    trainings: int
    sign: float  # of the objective: -1 where it is minimised

    def choice_at(self, place: int, accurate: bool) -> Choice:
        """Return one of the candidates as a choice."""
        gains = self.model.gains(self.model.front, *self._of(np.array([place], dtype=np.intp)))
        return self._choice(place, accurate, float(gains[0]))

    def belief(self, proposed: bool) -> Belief:
        """Return what is believed; if the best candidate has been `proposed`, it is not among the next."""
        front = [self._choice(int(place), False, None) for place in self._front()]
        return Belief(self.trainings, tuple(front), tuple(self._ahead(proposed)))

    @property
    def _median(self) -> Array:
        return self.judged.believed.median

    def _of(self, places: NDArray[np.intp]) -> tuple[Array, Believed]:
        return self.priced.costs[places], self.judged.believed.of(places)

    def _choice(self, place: int, accurate: bool, gain: float | None) -> Choice:
        volume = self.model.front.volume
        return Choice(
            self.priced.candidates[place],
            ProposalReason.ACCURATE if accurate else ProposalReason.GAIN,
            self.sign * float(self._median[place]),
            float(self.judged.believed.spread[place]),
            gain / volume if gain is not None and volume > 0 else None,
        )

    def _front(self) -> NDArray[np.intp]:
        """Return the places of the candidates that are predicted to be more accurate than all that cost less."""
        members = set() if self.priced.costs.shape[1] else {int(np.argmax(self._median))}
        for costs in self.priced.costs.T:
            order = np.lexsort((-self._median, costs))
            medians = self._median[order]
            steps = order[medians > np.maximum.accumulate(np.concatenate([[-np.inf], medians[:-1]]))]
            some = np.unique(np.linspace(0, len(steps) - 1, MOST_MEMBERS).round().astype(int))
            members.update(steps[some].tolist())
        return np.array(sorted(members), dtype=np.intp)

    def _ahead(self, proposed: bool) -> Sequence[Choice]:
        """Return what would be proposed next if each training reaches what is predicted for it."""
        taken: list[int] = []
        choices: list[Choice] = []
        places = np.argsort(-self.judged.scores, kind="stable")[:PROMISING]
        costs, believed = self._of(places)
        chances = self.judged.chances[places]
        median = believed.median
        for step in range(AHEAD + proposed):
            if len(taken) == len(places):
                break
            accurate = self.turns.is_for_accuracy(step)
            gains = self.model.gains(self.model.front_with(costs[taken], median[taken]), costs, believed)
            most = max([self.model.most, *median[taken]])
            scores = chances * (believed.improvement(np.array([most]))[:, 0] if accurate else gains)
            if step == 0:  # as it was judged
                scores = self.judged.scores[places]
            scores[taken] = -np.inf
            best = int(np.argmax(scores))
            taken.append(best)
            choices.append(self._choice(int(places[best]), accurate, float(gains[best])))
        return choices[1:] if proposed else choices
