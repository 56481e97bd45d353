"""A study's trials, as far as they matter to the next proposal."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.samplers.price_aware.pool import Params

TELLING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
PROPOSAL = "price_aware:proposal"  # a trial's system attribute: what was proposed, before it has suggested any of it
ENQUEUED = "fixed_params"  # as Optuna calls what a user has fixed of a trial
NOT_TRIED = "price_aware:not_tried"  # of a trial that failed without having been tried: it was cancelled, or a repeat
HUGE = 1e100  # what is beyond it either way is no value: squares of differences must stay finite
Reduced = Callable[[Mapping[str, Any]], Params]


@dataclass(frozen=True)
class Past:
    """A study's trials, as far as they matter to the next one."""

    asked: list[Params]  # of every trial but the one that is being asked
    taken: list[Params]  # of `asked`, those that are not asked again
    observed: list[Params]  # whose accuracy is known or, of those stopped early, estimated
    accuracies: list[float]  # of `observed`; larger is better
    costs: list[Sequence[float] | None]  # of `observed`, as the study has them; None: stopped early, or not all finite
    whole: list[bool]  # of `observed`: trained to the end, with costs
    running: list[Params]
    ended: list[Params]  # as their objective suggested them: others that agree in all of these are the same
    failed: list[Params]
    proposals: int  # of this sampler
    sign: float  # of the objective that is learnt: -1 where it is minimised
    carried: int = 0  # of `observed`, the first ones: of an earlier study, which nothing but the model knows
    further: set[str] = field(default_factory=set)  # settings that trials have beside those they have in common
    unusable: list[float] = field(default_factory=list)  # values that count as failures: not finite, or huge
    unusable_carried: list[float] = field(default_factory=list)  # those of an earlier study

    def whole_costs(self, signs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the costs, to be minimised, of what was trained to the end, (n, k)."""
        rows = [row for row in self.costs if row is not None]
        return np.array(rows, dtype=float).reshape(len(rows), len(signs)) * signs

    @classmethod
    def of(
        cls,
        trials: Sequence[FrozenTrial],
        number: int,
        space: Mapping[str, BaseDistribution],
        modelled: int,
        directions: Sequence[StudyDirection],
        reduced: Reduced,
        common: Set[str] | None = None,
    ) -> Past:
        """Read the trials before one, `reduced` to the settings that mean something.

        A trial that has settings beside the `common` ones isn't asked again by asking for these; None: others make no
        difference.
        """
        sign = 1.0 if directions[modelled] == StudyDirection.MAXIMIZE else -1.0
        params_of = {trial.number: _params(trial, space) for trial in trials if trial.number != number}
        known = [trial for trial in trials if params_of.get(trial.number)]
        gains = _Gains([trial for trial in known if trial.state == TrialState.COMPLETE], modelled)
        proposals = sum(trial.number < number and _is_proposal(trial) for trial in trials)
        past = cls([], [], [], [], [], [], [], [], [], proposals, sign, unusable=gains.unusable)
        replaced = _replaced(known)
        for trial in known:
            params = reduced(params_of[trial.number])
            past.asked.append(params)
            further = further_of(trial, common)
            past.further.update(further)
            if not further:
                past.taken.append(params)
                if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                    past.ended.append(params_of[trial.number])
            if trial.number in replaced:
                continue
            value = gains.final_of(trial)
            if value is not None:
                costs = _costs(trial, modelled)
                past.observed.append(params)
                past.accuracies.append(sign * value)
                past.whole.append(costs is not None)
                past.costs.append(costs)
            elif trial.state == TrialState.RUNNING:
                past.running.append(params)
            elif _has_failed(trial):
                past.failed.append(params)
        return past

    def with_carried(self, observations: Sequence[tuple[Params, float]]) -> Past:
        """Return the past with what an earlier study observed, (settings, value), unless it was observed here too."""
        own = [*self.observed]
        carried = [
            (params, self.sign * value) for params, value in observations if params not in own and _is_usable(value)
        ]
        return replace(
            self,
            observed=[*(params for params, _ in carried), *self.observed],
            accuracies=[*(accuracy for _, accuracy in carried), *self.accuracies],
            costs=[*([None] * len(carried)), *self.costs],
            whole=[*([False] * len(carried)), *self.whole],
            carried=len(carried),
            unusable_carried=[value for _, value in observations if not _is_usable(value)],
        )


def _params(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> Params:
    """Return a trial's settings that lie in a space; of one that hasn't ended by itself those it is asked for.

    Such a trial may not have suggested all of them yet. If nothing was proposed for it (it was enqueued, or another
    sampler's), it counts once it has all that the space has.
    """
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return settings_in(trial.params, space)
    if PROPOSAL in trial.system_attrs:
        return settings_in(asked_of(trial), space)
    return {name: trial.params[name] for name in space} if space.keys() <= trial.params.keys() else {}


def _is_proposal(trial: FrozenTrial) -> bool:
    return PROPOSAL in trial.system_attrs and ENQUEUED not in trial.system_attrs


def _has_failed(trial: FrozenTrial) -> bool:
    """Whether a trial was tried and nothing came of it, or no number."""
    if trial.state == TrialState.FAIL:
        return NOT_TRIED not in trial.system_attrs
    return trial.state == TrialState.COMPLETE


def _costs(trial: FrozenTrial, modelled: int) -> Sequence[float] | None:
    """Return what a trial that was trained to the end costs; None without, or if one of its costs isn't finite."""
    costs = without(trial.values, modelled) if trial.state == TrialState.COMPLETE else [math.nan]
    return costs if all(map(math.isfinite, costs)) else None


def settings_in(settings: Mapping[str, Any], space: Container[str]) -> Params:
    """Return those of some settings that lie in a space."""
    return {name: value for name, value in settings.items() if name in space}


def fixed_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return the settings that a trial was enqueued with, which Optuna puts before any proposal."""
    fixed: Mapping[str, Any] = trial.system_attrs.get(ENQUEUED, {})
    return fixed


def asked_of(trial: FrozenTrial) -> Params:
    """Return what a trial is really asked for: its settings, and what will be for those it has not suggested yet."""
    return {**trial.system_attrs.get(PROPOSAL, {}), **fixed_of(trial), **trial.params}


def further_of(trial: FrozenTrial, common: Set[str] | None) -> list[str]:
    """Return a trial's settings beside the `common` ones that might have been others; none if `common` is None."""
    if common is None:
        return []
    return [name for name, one in trial.distributions.items() if name not in common and not one.single()]


def _replaced(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of those stopped early that were taken up again: an equal, later trial tells more."""
    stopped = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    if not stopped:
        return set()
    newest = {_key(trial): trial.number for trial in trials if trial.state in TELLING}
    return {trial.number for trial in stopped if newest[_key(trial)] > trial.number}


def _key(trial: FrozenTrial) -> str:
    return repr(sorted(trial.params.items()))


class _Gains:
    """What trainings gain between one of their steps and their end."""

    def __init__(self, complete: Sequence[FrozenTrial], modelled: int) -> None:
        self._complete, self._modelled = complete, modelled
        self._by_step: dict[int, float] = {}
        self.unusable: list[float] = []  # values of finished trials that were met

    def final_of(self, trial: FrozenTrial) -> float | None:
        """Return a trial's value of the modelled objective; None if nothing is known of it."""
        gain = 0.0
        if trial.state == TrialState.COMPLETE and trial.values is not None:
            value = float(trial.values[self._modelled])
        elif trial.state == TrialState.PRUNED and trial.intermediate_values:
            step, value = max(trial.intermediate_values.items())
            gain = self._gain_from(step)
        else:
            return None
        if _is_usable(value):
            return value + gain
        if trial.state == TrialState.COMPLETE:
            self.unusable.append(value)
        return None

    def _gain_from(self, step: int) -> float:
        if step not in self._by_step:
            gains = [
                float(trial.values[self._modelled]) - trial.intermediate_values[step]
                for trial in self._complete
                if trial.values is not None and step in trial.intermediate_values
            ]
            gains = [gain for gain in gains if _is_usable(gain)]
            self._by_step[step] = float(np.median(gains)) if gains else 0.0
        return self._by_step[step]


def _is_usable(value: float) -> bool:
    return abs(value) <= HUGE  # which NaN isn't either


def without(values: Sequence[Any], place: int) -> list[Any]:
    """Return the values without the one at a place."""
    return [value for number, value in enumerate(values) if number != place]
