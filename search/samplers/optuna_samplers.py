"""Optuna's samplers over our domains, seeded for every trial.

Notable choices:
- A new sampler is built for every proposal, seeded by (study seed, trial number): a resumed study doesn't repeat its
  earlier proposals, and the same study proposes the same first trials everywhere.
- A domain with a single value is not a parameter.
- NSGA-II and GP don't see refused candidates and would propose the same ones forever; after a repeat the next
  proposal is drawn at random. TPE learns from refused candidates by their constraints.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.search_space import IntersectionSearchSpace

from search.settings import SearchSettings
from space.domains import Choice, Domain, FloatRange, IntRange


def distributions(domains: Mapping[str, Domain]) -> dict[str, BaseDistribution]:
    """Return Optuna's form of the domains that have more than one value.

    A choice among evenly spaced whole numbers becomes a range, so that a sampler knows their order; powers of two and
    other uneven lists stay categories.
    """
    return {name: _distribution(domain) for name, domain in domains.items() if not _single(domain)}


def _single(domain: Domain) -> bool:
    values = domain.enumerate()
    return values is not None and len(values) == 1


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, IntRange):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, FloatRange):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return _choice(domain)


def _choice(domain: Choice) -> BaseDistribution:
    values = domain.values
    if all(isinstance(value, int) for value in values):
        whole = [int(value) for value in values]
        steps = {b - a for a, b in pairwise(whole)}
        if len(steps) == 1 and (step := steps.pop()) > 0:
            return IntDistribution(whole[0], whole[-1], step=step)
    return CategoricalDistribution(list(values))


class _TPE(optuna.samplers.TPESampler):
    """TPE that doesn't go through the parameters of all trials every time: `common` remembers what they share."""

    def __init__(self, common: IntersectionSearchSpace, seed: int, startup: int) -> None:
        super().__init__(seed=seed, n_startup_trials=startup, multivariate=True)
        self._common = common

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that all trials have in common."""
        return self._common.calculate(study)


def make_sampler(
    settings: SearchSettings,
    study_seed: int,
    number: int,
    at_random: bool,
    common: IntersectionSearchSpace | None = None,
) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler for the proposal of trial `number`; `at_random` after a repeat.

    `common` serves all proposals of one study (`IntersectionSearchSpace(include_pruned=True)`); None makes a new one.
    """
    seed = int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if at_random or settings.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if settings.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=max(4, settings.startup), seed=seed)
        if settings.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=settings.startup)
        return _TPE(common or IntersectionSearchSpace(include_pruned=True), seed, settings.startup)
