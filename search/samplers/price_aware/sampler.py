"""Proposes candidates by what they cost and by what training them is expected to add to the front.

    sampler = PriceAwareSampler(lambda candidates: [[macs(candidate)] for candidate in candidates])
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

Of a study's objectives one is learnt by training; the others can be computed before it. Only the first is modelled: a
Gaussian process predicts it from settings and costs, and the candidate with the largest expected gain in hypervolume at
its known costs is proposed (`improvement`).

Notable choices:
- The first candidates are spread over the known costs: even untrained, that is most of what random ones miss.
- A candidate that was asked before is never asked again, however it ended.
- Trainings under way count with the accuracy that is predicted for them, so parallel workers get different candidates.
- Under limits, every fourth proposal looks for the most accurate candidate inside them, whatever it costs there: that
  is what a budget is for. Where few candidates are inside, little of a front is left to find: every second does, and
  half as many candidates are spread over the costs at first.
  Where nothing is known to be inside, the candidate that is over by the least is proposed.
- A trial that was stopped early teaches, too: its last value, raised by what finished trials gained from there on.
- Everything depends on the study's trials, the seed and the number of the trial that is asked: a study that goes on in
  another process is asked the same.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, _get_single_value
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from search.samplers.price_aware.arguments import (
    check_objectives,
    checked_count,
    checked_limits,
    checked_observations,
)
from search.samplers.price_aware.belief import Belief, Choice, View
from search.samplers.price_aware.chooser import Chooser, Draw
from search.samplers.price_aware.doubts import Doubt, doubts_of_past, doubts_of_trials
from search.samplers.price_aware.encoding import Encoding
from search.samplers.price_aware.known import Known, OfCandidates
from search.samplers.price_aware.past import PROPOSAL, Past, asked_of, fixed_of, further_of, settings_in, without
from search.samplers.price_aware.pool import Pool

log = logging.getLogger(__name__)
RIVALS = 10  # times that a proposal is made again because another process made the same one at the same moment
STARTUP = 6  # trials spread over the known costs before anything is modelled


class PriceAwareSampler(BaseSampler):
    """An Optuna sampler for studies of which all objectives but one are known in advance; see the module.

    Args:
        price: returns the known objectives of candidates in the study's order, without the modelled one, (n, k). A row
            with NaN can't be built and is never proposed. One proposal asks for up to 16,384 candidates at once.
        search_space: every parameter; None takes those that all trials have in common, once there are some. Others
            are drawn at random then, and a candidate of which a trial has had others is none that was asked: it is
            proposed again where that promises the most.
        modelled: the place of the objective that only a training tells.
        limits: upper limits of the known objectives (lower ones of what is maximised); None or infinity is no limit.
        excess: in place of limits, never beside them: by how much candidates are over them, (n,); 0 or less is inside,
            and NaN can't be built.
        key: what tells candidates apart, hashable; None is all their parameters, or those that `canonical` keeps.
        canonical: returns of a candidate the parameters that mean something beside each other, without, for instance,
            those of a stage that isn't there; None keeps all. Where an objective suggests some parameters only
            sometimes, this is how the model sees candidates as it sees trials.
        features: further facts of candidates for the model, (n, f): anything cheap that may tell accuracies apart.
        exact: whether `price` gives the same for a candidate whenever it is asked; False where it learns.
        warn: takes each sentence about what is wrong with the study, once; None logs it as a warning.
        startup: trials that are spread over the known costs first; half of them where few candidates are inside the
            limits.
        seed: None draws one. It is kept however many threads ask.
        observations: candidates of which the modelled objective's value is known from elsewhere, such as an earlier
            study, with that value. They are beliefs alone: they may be proposed, and are on no front.

    Raises:
        ValueError: a limit is no number, there are both limits and excess, startup or seed is no whole number from 0
            on, or an observation isn't a candidate with a number. When a trial is asked: modelled or limits don't fit
            the study's objectives, or a function returned what it must not; the sentence says which.
    """

    def __init__(
        self,
        price: OfCandidates,
        *,
        search_space: Mapping[str, BaseDistribution] | None = None,
        modelled: int = 0,
        limits: Sequence[float | None] | None = None,
        excess: OfCandidates | None = None,
        key: Callable[[Mapping[str, Any]], Hashable] | None = None,
        canonical: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        features: OfCandidates | None = None,
        exact: bool = True,
        warn: Callable[[str], None] | None = None,
        startup: int = STARTUP,
        seed: int | None = None,
        observations: Sequence[tuple[Mapping[str, Any], float]] = (),
    ) -> None:
        limits = checked_limits(limits, excess)
        self._exact, self._warn, self._said = exact, warn or log.warning, set[str]()
        self._known = Known(price, limits, excess, key, features, canonical)
        self._space, self._modelled, self._startup = search_space, modelled, checked_count("startup", startup)
        self._observations = checked_observations(observations)
        self._seed = checked_count("seed", np.random.SeedSequence().generate_state(1)[0] if seed is None else seed)
        self._common = IntersectionSearchSpace(include_pruned=True)
        self._alone = threading.Lock()
        self.choice: Choice | None = None  # the last proposal, with its reason; None if it was drawn at random
        self.view: View | None = None  # of that proposal's candidates, if they were judged by a model
        self._pools: dict[tuple[str, ...], tuple[Pool, Encoding]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process has: all but the lock."""
        return {name: value for name, value in self.__dict__.items() if name != "_alone"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take over a copy's state."""
        self.__dict__.update(state)
        self._alone = threading.Lock()

    def reseed_rng(self) -> None:
        """Keep the seed, which Optuna asks each of several threads to draw anew.

        It would only make proposals depend on which thread was first: copies of a sampler propose different candidates
        anyway, since they are asked for trials of different numbers.
        """

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Forget why the last candidate was proposed: Optuna asks nothing for a trial whose settings are all given."""
        self.choice = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are proposed together."""
        return self._proposed_together(study)

    def _proposed_together(self, study: Study) -> dict[str, BaseDistribution]:
        return {name: one for name, one in self._parameters(study).items() if not one.single()}

    def _parameters(self, study: Study) -> dict[str, BaseDistribution]:
        return self._common.calculate(study) if self._space is None else dict(self._space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """Draw a parameter that isn't in the relative search space at random; it depends on seed, trial and name."""
        draw = np.random.SeedSequence([self._seed, trial.number, zlib.crc32(param_name.encode())]).generate_state(1)
        return RandomSampler(seed=int(draw[0])).sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the candidate to train next; {} (drawn at random) if every candidate was asked or can't be built."""
        if not search_space:
            self.choice = self.view = None
            return {}
        choice = None
        with self._alone:  # this process's threads, one after another
            for _ in range(RIVALS):
                choice = self._choose(study, trial.number, search_space)
                if choice is None:
                    break
                # Others may ask before the objective has suggested any of it.
                study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, choice.params)
                if not self._has_rival(study, trial, choice.params):
                    break
        return {} if choice is None else choice.params

    def belief(self) -> Belief | None:
        """Return what was believed at the last proposal and is believed of the next ones; None without a model."""
        return None if self.view is None else self.view.belief(proposed=True)

    def outlook(self, study: Study, number: int) -> Belief | None:
        """Return what is believed now and would be proposed for the trial of this number; nothing is proposed."""
        choice = self._choose(study, number, self._proposed_together(study))
        if self.view is not None:
            return self.view.belief(proposed=False)
        done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return Belief(len(done), (), ()) if choice is None else None  # nothing is left to propose

    def _choose(self, study: Study, number: int, space: Mapping[str, BaseDistribution]) -> Choice | None:
        check_objectives(self._modelled, self._known.limits, study.directions)
        pool, encoding = self._pool_of(space)
        trials = study.get_trials(deepcopy=False)
        constants = {name: _get_single_value(one) for name, one in self._parameters(study).items() if one.single()}
        known = replace(self._known, constants=constants)
        past = Past.of(
            trials, number, space, self._modelled, study.directions, known.reduced, self._common_names(study)
        )
        past = past.with_carried([(known.reduced(params), value) for params, value in self._observations])
        signs, draw = _signs(study.directions, self._modelled), Draw.of(self._seed, number)
        # Matrices are small, and trainings keep every processor busy: with BLAS threads that wait for each other a
        # proposal took a minute instead of a fifth of a second.
        with threadpool_limits(1, "blas"):
            self._say(doubts_of_trials(trials, self._modelled))
            self._say(doubts_of_past(past, known if self._exact else None, space, signs))
            chooser = Chooser(known, pool, encoding, past, signs, draw, self._startup)
            self.choice = chooser.chosen()
        self.view = chooser.view
        self._say(chooser.doubts)
        return self.choice

    def _common_names(self, study: Study) -> Set[str] | None:
        """Return the parameters that all trials have; None if others make no difference between candidates."""
        named = self._space is not None or self._known.key is not None
        return None if named else self._parameters(study).keys()

    def _has_rival(self, study: Study, own: FrozenTrial, proposed: Mapping[str, Any]) -> bool:
        """Whether another trial was given the same, by a process that chose at the same moment.

        If both see it both choose again, and so on: a moment is seldom the same twice.
        """
        common = self._common_names(study)
        asked = {**proposed, **settings_in(fixed_of(own), proposed)}
        return any(
            settings_in(asked_of(other), other.system_attrs[PROPOSAL]) == asked
            for other in study.get_trials(deepcopy=False)
            if other.number != own.number and PROPOSAL in other.system_attrs and not further_of(other, common)
        )

    def _say(self, doubts: Iterable[Doubt]) -> None:
        for about, sentence in doubts:
            if about not in self._said:
                self._said.add(about)
                self._warn(sentence)

    def _pool_of(self, space: Mapping[str, BaseDistribution]) -> tuple[Pool, Encoding]:
        name = tuple(f"{key}={distribution}" for key, distribution in sorted(space.items()))
        if name not in self._pools:
            self._pools[name] = (Pool(space), Encoding(space))
        return self._pools[name]


def _signs(directions: Sequence[StudyDirection], modelled: int) -> NDArray[np.float64]:
    """Return -1 for each known objective that is maximised, else 1."""
    return np.array([-1.0 if one == StudyDirection.MAXIMIZE else 1.0 for one in without(directions, modelled)])
