"""What is wrong with a study's trials, in sentences: the sampler goes on as well as it can, and says so once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from search.samplers.price_aware.encoding import typed
from search.samplers.price_aware.known import Known, Priced
from search.samplers.price_aware.past import HUGE, Past, without
from search.samplers.price_aware.pool import Params

Array = NDArray[np.float64]
Doubt = tuple[str, str]  # what it is about, by which it is said only once, and the sentence

ENOUGH = 4  # trainings of which the same is no chance
MANY = 0.25  # share of trainings that fail
LOOKED_AT = 500  # trials, the newest: earlier ones were looked at when they were new
APART = 0.05  # share by which a known cost may differ when it is computed again


def doubts_of_trials(trials: Sequence[FrozenTrial], modelled: int) -> Iterator[Doubt]:
    """Yield what is wrong with trials as they were told."""
    finished = [trial for trial in trials if trial.state.is_finished()]
    costless = sum(not all(map(math.isfinite, without(trial.values or (), modelled))) for trial in finished)
    if costless:
        counted = "1 trial has" if costless == 1 else f"{costless} trials have"
        yield (
            "infinite costs",
            f"{counted} a known value that isn't finite: the accuracy teaches, but is on no front; tell the study what "
            "`price` returns.",
        )
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
    yield from _doubts_of_values(past)
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
    if past.further:
        names = ", ".join(sorted(past.further))
        yield (
            "further",
            f"not all trials have {names}, or not alike, so such settings are drawn at random: name them in "
            "search_space, and in canonical where some mean something only beside others.",
        )
    repeats = len(newest) - len({tuple((name, typed(one[name])) for name in sorted(one)) for one in newest})
    if repeats and not past.further:
        times = "1 trial repeats" if repeats == 1 else f"{repeats} trials repeat"
        yield "repeats", f"{times} the settings of another: how their values differ counts as noise."
    if known is not None:
        yield from _doubts_of_costs(past, known, signs)


def _doubts_of_values(past: Past) -> Iterator[Doubt]:
    instead = "such a training counts as failed; tell the study a number, or that it failed."
    for about, what, values, remedy in (
        ("values", "trial", past.unusable, instead),
        ("observations", "observation", past.unusable_carried, "such an observation is left out."),
    ):
        if values:
            counted = f"1 {what} has a value" if len(values) == 1 else f"{len(values)} {what}s have values"
            yield (
                about,
                f"{counted} such as {values[0]:g}, which isn't a finite number up to {HUGE:g}: {remedy}",
            )


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


def doubts_of_choice(priced: Priced, asked: Sequence[Params], signs: Array) -> Iterator[Doubt]:
    """Yield what is wrong with the candidates that there are to choose from, beside those that were `asked` already."""
    count = len(priced.candidates)
    if not count:
        yield "used up", "every candidate was proposed already, or none can be built: further ones are drawn at random."
    elif (priced.over > 0).all():
        nearest = f"the nearest exceeds one by {_share(float(priced.over.min()))}: the nearest are tried; "
        if _any_inside(priced, asked, signs):
            yield (
                "limits used up",
                f"every candidate inside the limits that was found was proposed already; of {count} others {nearest}"
                "widen the space or the limits, or stop the study.",
            )
        else:
            yield (
                "limits",
                f"none of {count} candidates is inside the limits, {nearest}widen the space or the limits.",
            )


def _any_inside(priced: Priced, asked: Sequence[Params], signs: Array) -> bool:
    """Whether any of those that were asked is inside the limits; of some with settings missing that isn't known."""
    needed = set.intersection(*map(set, priced.candidates))
    whole = [params for params in asked if needed <= params.keys()]
    return bool((priced.known.priced(whole, signs).over <= 0).any())


def _share(share: float) -> str:
    """Return a share in percent, with two digits where it is small: 0.004 is 0.4%."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"


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
