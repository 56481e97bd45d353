"""Who proposes: domains become distributions, and a seed belongs to one proposal only."""

from __future__ import annotations

import warnings

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers.optuna_samplers import distributions, make_sampler
from search.settings import SearchSettings
from space.domains import Choice, FloatRange, IntRange
from tests.search.tiny_studies import tiny_settings

SAMPLERS = ["tpe", "nsga2", "gp", "random"]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (IntRange(1, 9, 2), IntDistribution(1, 9, step=2)),
        (IntRange(1, 64, log=True), IntDistribution(1, 64, log=True)),
        (FloatRange(0.1, 0.5), FloatDistribution(0.1, 0.5)),
        (FloatRange(0.01, 1.0, log=True), FloatDistribution(0.01, 1.0, log=True)),
        (Choice((4, 8, 12, 16)), IntDistribution(4, 16, step=4)),  # evenly spaced: a sampler may know their order
        (Choice((1, 2)), IntDistribution(1, 2)),
        (Choice((1, 2, 4)), CategoricalDistribution([1, 2, 4])),
        (Choice((16, 12, 8)), CategoricalDistribution([16, 12, 8])),
        (Choice((0.0, 0.1, 0.2)), CategoricalDistribution([0.0, 0.1, 0.2])),
        (Choice(("same", 1, 4)), CategoricalDistribution(["same", 1, 4])),
    ],
)
def test_a_domain_becomes_the_distribution_of_the_same_values(domain, expected):
    assert distributions({"x": domain}) == {"x": expected}


@pytest.mark.parametrize("domain", [Choice((4,)), IntRange(3, 3), Choice(("same",))])
def test_a_domain_of_one_value_is_no_parameter(domain):
    assert distributions({"x": domain}) == {}


def test_every_value_of_a_space_can_be_proposed():
    space = tiny_settings().search_space()
    for name, distribution in distributions(space.domains).items():
        for value in space.domains[name].enumerate():
            assert distribution._contains(distribution.to_internal_repr(value))


DISTRIBUTIONS = distributions(tiny_settings().search_space().domains)


def propose(part: SearchSettings, seed: int, numbers: range, told: int = 8) -> list[dict]:
    """What a study with `told` finished trials would propose under each of these numbers."""
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for number in range(told):
        study.sampler = optuna.samplers.RandomSampler(seed=number)
        trial = study.ask(DISTRIBUTIONS)
        study.tell(trial, [number / 10, float(trial.params["bottleneck"]), float(trial.params["num_stages"])])
    found = []
    for number in numbers:
        study.sampler = make_sampler(part, seed, number, at_random=False)
        trial = study.ask(DISTRIBUTIONS)
        found.append(trial.params)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_proposes_the_same(sampler: str):
    part = SearchSettings(sampler=sampler, startup=4)
    assert propose(part, 5, range(8, 10)) == propose(part, 5, range(8, 10))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_seed_or_a_resumed_study_proposes_others(sampler: str):
    part = SearchSettings(sampler=sampler, startup=100)  # while proposals are random
    first = propose(part, 5, range(8), told=0)
    assert propose(part, 6, range(8), told=0) != first
    assert propose(part, 5, range(8, 16), told=0) != first  # numbers go on where they stopped


def test_after_a_repeat_the_proposal_is_random_whatever_the_sampler():
    for name in SAMPLERS:
        sampler = make_sampler(SearchSettings(sampler=name), 0, 3, at_random=True)
        assert isinstance(sampler, optuna.samplers.RandomSampler)


def test_each_name_is_its_sampler():
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    kinds = (
        optuna.samplers.TPESampler,
        optuna.samplers.NSGAIISampler,
        optuna.samplers.GPSampler,
        optuna.samplers.RandomSampler,
    )
    for name, kind in zip(SAMPLERS, kinds, strict=True):
        assert isinstance(make_sampler(SearchSettings(sampler=name), 0, 0, at_random=False), kind)
