"""Chooses one candidate: from which there are, spread over their costs at first, then the most promising one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from search.results.pareto import non_dominated
from search.samplers.price_aware import CELLS, WHOLE
from search.samplers.price_aware.belief import Choice, Turns, View
from search.samplers.price_aware.doubts import Doubt, doubts_of_choice
from search.samplers.price_aware.encoding import Encoding, typed
from search.samplers.price_aware.known import Known, Priced
from search.samplers.price_aware.model import Model, Scale
from search.samplers.price_aware.past import Past
from search.samplers.price_aware.pool import Params, Pool
from search.store.vocabulary import ProposalReason

Array = NDArray[np.float64]

RANDOM, CROSSED = 1_000, 400  # candidates of a space that isn't looked at as a whole
PARENTS = 12  # of the best candidates, whose neighbours are looked at
ROUNDS = 2  # of looking at neighbours of the best candidates so far
TIGHT = 0.1  # share of the candidates inside the limits; below it there is little to spread over, little front
DESIGN_SHARE = 1 / 16  # of the candidates, those nearest to the wanted cost, one of which begins a study


@dataclass(frozen=True)
class Draw:
    """What is random in the proposal for one trial."""

    rng: np.random.Generator
    offset: float  # 0..1, of the costs that a study begins with
    seed: int  # of the study

    @classmethod
    def of(cls, seed: int, number: int) -> Draw:
        """Return what a study's seed gives for the trial of a number."""
        return cls(np.random.default_rng([seed, number]), float(np.random.default_rng(seed).random()), seed)


class Chooser:
    """Chooses the candidate of one proposal."""

    def __init__(
        self, known: Known, pool: Pool, encoding: Encoding, past: Past, signs: Array, draw: Draw, startup: int
    ) -> None:
        self._known, self._pool, self._encoding, self._past, self._signs = known, pool, encoding, past, signs
        self._draw, self._rng = draw, draw.rng
        self._tight = known.limited and self._share_inside() < TIGHT
        self.doubts: list[Doubt] = []  # about the candidates
        self.view: View | None = None  # of the candidates, once they were judged by a model
        self._asked = {self._key(params) for params in past.taken}
        self._ended = _Ended(past.ended)
        self._trainings = len(past.observed) + len(past.running)
        self._begins = self._trainings < (startup / 2 if self._tight else startup) or not past.observed
        # While a study begins, more candidates would only move the most different one to the space's edge.
        self._most = WHOLE if self._begins else max(WHOLE, CELLS // self._trainings)
        self._whole = pool.whole(self._most)

    def _share_inside(self) -> float:
        """Return the share of the space's candidates that are inside the limits, by a sample that a study keeps."""
        sample = self._pool.random(RANDOM, np.random.default_rng(self._draw.seed))
        priced = self._known.priced([self._known.reduced(candidate) for candidate in sample], self._signs)
        return float((priced.over <= 0).mean()) if priced.candidates else 0.0

    def _key(self, candidate: Params) -> Hashable:
        return self._pool.key(candidate) if self._known.key is None else self._known.key_of(candidate)

    def chosen(self) -> Choice | None:
        """Return the candidate and why it is chosen; None if there is none."""
        priced = self._fresh(self._begin())
        inside = priced.over <= 0
        self.doubts += doubts_of_choice(priced, self._past.asked, self._signs)
        if not priced.candidates:
            return None
        if not inside.any():
            return Choice(priced.candidates[int(np.argmin(priced.over))], ProposalReason.NEAREST)
        if self._begins:
            return Choice(self._spread(priced.of(inside)), ProposalReason.SPREAD)
        return self._best(priced.of(inside))

    # -- which candidates there are --

    def _begin(self) -> Iterable[Params]:
        if self._whole is not None:
            return self._whole
        good = self._good()
        crossed = self._pool.crossed(good, CROSSED, self._rng)
        count = self._most if self._pool.listed and not self._begins else RANDOM
        return [*self._pool.random(count, self._rng), *crossed, *self._pool.neighbours(good, self._rng)]

    def _good(self) -> list[Params]:
        """Return trained candidates of the front, if there are any."""
        if not any(self._past.whole):
            return []
        whole = np.flatnonzero(self._past.whole)
        accuracies = np.array(self._past.accuracies)[whole]
        members = whole[non_dominated(np.column_stack([self._past.whole_costs(self._signs), -accuracies]))]
        return [self._past.observed[place] for place in self._rng.permutation(members)[:PARENTS]]

    def _fresh(self, candidates: Iterable[Params]) -> Priced:
        """Price those of the candidates that were not asked yet, nor are among those looked at before.

        They are reduced to the settings that mean something, as trials are: a model must see both alike.
        """
        fresh: dict[Hashable, Params] = {}
        for whole in candidates:
            candidate = self._known.reduced(whole)
            key = self._key(candidate)
            if key not in self._asked and not self._ended.holds(whole):
                fresh.setdefault(key, candidate)
        self._asked.update(fresh)
        return self._known.priced(list(fresh.values()), self._signs)

    # -- which is the best --

    def _spread(self, priced: Priced) -> Params:
        """Return a candidate of about the wanted cost that differs most from what is trained already.

        Every beginning of the wanted costs is spread evenly.
        """
        wanted = (_van_der_corput(len(self._past.asked)) + self._draw.offset) % 1.0
        order = np.argsort(Scale.of(priced.costs)(priced.costs).sum(axis=1), kind="stable")
        count = max(1, round(DESIGN_SHARE * len(order)))
        first = min(max(0, int(wanted * len(order)) - count // 2), len(order) - count)
        near = [priced.candidates[int(place)] for place in order[first : first + count]]
        trained = [*self._past.observed, *self._past.running, *self._past.failed]
        if not trained:
            return near[int(self._rng.integers(count))]
        apart = cdist(self._encoding.features(near), self._encoding.features(trained)).min(axis=1)
        return near[int(np.argmax(apart))]

    def _best(self, priced: Priced) -> Choice:
        model = Model(self._known, self._encoding, self._past, self._signs, priced)
        turns = Turns(self._past.proposals, 0 if not self._known.limited else 2 if self._tight else 4)
        accurate = turns.is_for_accuracy()
        judged = model.judged(priced, accurate)
        for _ in range(0 if self._whole is not None else ROUNDS):
            best = np.argsort(-judged.scores, kind="stable")[:PARENTS]
            more = self._fresh(self._pool.neighbours([priced.candidates[int(place)] for place in best], self._rng))
            more = more.of(more.over <= 0)
            if not more.candidates:
                break
            priced, judged = priced + more, judged + model.judged(more, accurate)
        trainings, sign = len(self._past.observed) - self._past.carried, self._past.sign
        self.view = View(model, priced, judged, turns, trainings, sign)
        return self.view.choice_at(int(np.argmax(judged.scores)), accurate)


class _Ended:
    """The trials that have ended, by the settings that their objective has asked for.

    An objective that asked for some settings only asks for no others when these are the same: whatever else a candidate
    says, it would be that trial again.
    """

    def __init__(self, ended: Iterable[Params]) -> None:
        self._values: dict[tuple[str, ...], set[tuple[Hashable, ...]]] = {}
        for params in ended:
            names = tuple(sorted(params))
            self._values.setdefault(names, set()).add(_values_of(params, names))

    def holds(self, candidate: Params) -> bool:
        """Whether a candidate would be one of them."""
        return any(
            all(name in candidate for name in names) and _values_of(candidate, names) in values
            for names, values in self._values.items()
        )


def _values_of(params: Params, names: Iterable[str]) -> tuple[Hashable, ...]:
    return tuple(typed(params[name]) for name in names)


def _van_der_corput(number: int) -> float:
    """Return the number's binary digits behind the point, in reverse (van der Corput): 0, 1/2, 1/4, 3/4, …"""
    place, share = 0.0, 0.5
    while number:
        number, digit = divmod(number, 2)
        place, share = place + digit * share, share / 2
    return place
