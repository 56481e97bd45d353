"""A study's trials, as far as they matter to the next proposal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
Reduced = Callable[[Mapping[str, Any]], Params]


@dataclass(frozen=True)
class Past:
    """A study's trials, as far as they matter to the next one."""

    asked: list[Params]  # of every trial but the one that is being asked
    observed: list[Params]  # whose accuracy is known or, of those stopped early, estimated
    accuracies: list[float]  # of `observed`; larger is better
    costs: list[Sequence[float] | None]  # of `observed`, as the study has them; None where it was stopped early
    whole: list[bool]  # of `observed`: trained to the end
    running: list[Params]
    ended: list[Params]  # as their objective suggested them: others that agree in all of these are the same
    failed: list[Params]
    proposals: int  # of this sampler
    sign: float  # of the objective that is learnt: -1 where it is minimised
    carried: int = 0  # of `observed`, the first ones: of an earlier study, which nothing but the model knows

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
    ) -> Past:
        """Read the trials before one, `reduced` to the settings that mean something."""
        sign = 1.0 if directions[modelled] == StudyDirection.MAXIMIZE else -1.0
        params_of = {trial.number: _params(trial, space) for trial in trials if trial.number != number}
        known = [trial for trial in trials if params_of.get(trial.number)]
        gains = _Gains([trial for trial in known if trial.state == TrialState.COMPLETE], modelled)
        proposals = sum(trial.number < number and _is_proposal(trial) for trial in trials)
        past = cls([], [], [], [], [], [], [], [], proposals, sign)
        replaced = _replaced(known)
        for trial in known:
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                past.ended.append(params_of[trial.number])
            params = reduced(params_of[trial.number])
            past.asked.append(params)
            if trial.number in replaced:
                continue
            value = gains.final_of(trial)
            if value is not None:
                past.observed.append(params)
                past.accuracies.append(sign * value)
                whole = trial.state == TrialState.COMPLETE
                past.whole.append(whole)
                past.costs.append(without(trial.values, modelled) if whole else None)
            elif trial.state == TrialState.RUNNING:
                past.running.append(params)
            elif _has_failed(trial):
                past.failed.append(params)
        return past

    def with_carried(self, observations: Sequence[tuple[Params, float]]) -> Past:
        """Return the past with what an earlier study observed, (settings, value), unless it was observed here too."""
        own = [*self.observed]
        carried = [(params, self.sign * value) for params, value in observations if params not in own]
        return replace(
            self,
            observed=[*(params for params, _ in carried), *self.observed],
            accuracies=[*(accuracy for _, accuracy in carried), *self.accuracies],
            costs=[*([None] * len(carried)), *self.costs],
            whole=[*([False] * len(carried)), *self.whole],
            carried=len(carried),
        )


def _params(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> Params:
    """Return a trial's settings that lie in a space; of one that hasn't ended by itself those proposed for it.

    Such a trial may not have suggested all of them yet. If nothing was proposed for it (it was enqueued, or another
    sampler's), it counts once it has all that the space has.
    """
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return {name: value for name, value in trial.params.items() if name in space}
    proposed = trial.system_attrs.get(PROPOSAL)
    if proposed is not None:
        return {name: value for name, value in proposed.items() if name in space}
    return {name: trial.params[name] for name in space} if space.keys() <= trial.params.keys() else {}


def _is_proposal(trial: FrozenTrial) -> bool:
    return PROPOSAL in trial.system_attrs and ENQUEUED not in trial.system_attrs


def _has_failed(trial: FrozenTrial) -> bool:
    """Whether a trial was tried and nothing came of it, or no number."""
    if trial.state == TrialState.FAIL:
        return NOT_TRIED not in trial.system_attrs
    return trial.state == TrialState.COMPLETE


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

    def final_of(self, trial: FrozenTrial) -> float | None:
        """Return a trial's value of the modelled objective; None if nothing is known of it."""
        if trial.state == TrialState.COMPLETE and trial.values is not None:
            value = float(trial.values[self._modelled])
            return value if math.isfinite(value) else None
        if trial.state != TrialState.PRUNED or not trial.intermediate_values:
            return None
        step, value = max(trial.intermediate_values.items())
        return value + self._gain_from(step) if math.isfinite(value) else None

    def _gain_from(self, step: int) -> float:
        if step not in self._by_step:
            gains = [
                float(trial.values[self._modelled]) - trial.intermediate_values[step]
                for trial in self._complete
                if trial.values is not None and step in trial.intermediate_values
            ]
            self._by_step[step] = float(np.median(gains)) if gains else 0.0
        return self._by_step[step]


def without(values: Sequence[Any], place: int) -> list[Any]:
    """Return the values without the one at a place."""
    return [value for number, value in enumerate(values) if number != place]
