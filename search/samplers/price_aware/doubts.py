"""What is wrong with a study's trials, in sentences: the sampler goes on as well as it can, and says so once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from search.samplers.price_aware.known import Known
from search.samplers.price_aware.past import Past
from search.samplers.price_aware.pool import Params

Array = NDArray[np.float64]
Doubt = tuple[str, str]  # what it is about, by which it is said only once, and the sentence

ENOUGH = 4  # trainings of which the same is no chance
MANY = 0.25  # share of trainings that fail
LOOKED_AT = 500  # trials, the newest: earlier ones were looked at when they were new
APART = 0.05  # share by which a known cost may differ when it is computed again


def doubts_of_trials(trials: Sequence[FrozenTrial]) -> Iterator[Doubt]:
    """Yield what is wrong with trials as they were told."""
    finished = [trial for trial in trials if trial.state.is_finished()]
    failed = sum(trial.state == TrialState.FAIL for trial in finished)
    if failed >= ENOUGH and failed == len(finished):
        yield (
            "failed",
            f"all of the {failed} trials so far failed, as one does whose value is NaN: nothing is learnt from them; "
            "see why, or stop the study.",
        )


def doubts_of_past(
    past: Past, known: Known | None, space: Mapping[str, BaseDistribution], signs: Array
) -> Iterator[Doubt]:
    """Yield what is wrong with the trials that teach; `known` is left out where costs are only estimated."""
    if len(past.accuracies) >= ENOUGH and len(set(past.accuracies)) == 1:
        yield (
            "constant",
            f"all {len(past.accuracies)} trainings reached the same {past.sign * past.accuracies[0]:g}: nothing tells "
            "candidates apart but their costs; see whether the trainings learn at all.",
        )
    newest = past.observed[-LOOKED_AT:]
    if name := _unknown_choice(newest, space):
        yield (
            "category",
            f"some trials have a {name[0]} of {name[1]!r}, which the space doesn't offer: they count as of a category "
            "of their own.",
        )
    tried = len(past.failed) + len(past.observed)
    if past.observed and len(past.failed) >= max(ENOUGH, tried * MANY):
        yield (
            "many failed",
            f"{len(past.failed)} of {tried} trainings failed: candidates like them are proposed less; see why they "
            "fail.",
        )
    repeats = len(newest) - len({tuple(sorted(one.items(), key=lambda item: item[0])) for one in newest})
    if repeats:
        times = "1 trial repeats" if repeats == 1 else f"{repeats} trials repeat"
        yield "repeats", f"{times} the settings of another: how their values differ counts as noise."
    if known is not None:
        yield from _doubts_of_costs(past, known, signs)


def _doubts_of_costs(past: Past, known: Known, signs: Array) -> Iterator[Doubt]:
    off, compared = _costs_apart(past, known, signs)
    if off == compared >= ENOUGH:
        yield (
            "all costs",
            f"none of the {compared} trials has the known values that are computed for its settings now, so the model "
            "mixes two scales: tell the study what `price` returns, not, for instance, its logarithm.",
        )
    elif off:
        yield (
            "costs",
            f"{'a trial has' if off == 1 else f'{off} trials have'} known values that differ by more than {APART:.0%} "
            "from what is computed for the same settings now: the recorded ones count there.",
        )


def doubts_of_choice(candidates: int, least_over: float | None) -> Iterator[Doubt]:
    """Yield what is wrong with the candidates that there are to choose from."""
    if not candidates:
        yield "used up", "every candidate was proposed already, or none can be built: further ones are drawn at random."
    elif least_over is not None:
        yield (
            "limits",
            f"none of {candidates} candidates is inside the limits, the nearest exceeds one by {least_over:.0%}: the "
            "nearest are tried; widen the space or the limits.",
        )


def _unknown_choice(candidates: Sequence[Params], space: Mapping[str, BaseDistribution]) -> tuple[str, object] | None:
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            for candidate in candidates:
                if name in candidate and candidate[name] not in distribution.choices:
                    return name, candidate[name]
    return None


def _costs_apart(past: Past, known: Known, signs: Array) -> tuple[int, int]:
    """Return how many trials have recorded costs that aren't what is computed now, and how many were compared."""
    whole = [params for params, complete in zip(past.observed, past.whole, strict=True) if complete][-LOOKED_AT:]
    recorded, now = past.whole_costs(signs)[-LOOKED_AT:], known.costs(whole, signs)
    off = np.abs(recorded - now) > APART * np.maximum(np.abs(recorded), np.abs(now))
    return int((off & np.isfinite(now)).any(axis=1).sum()), len(whole)
