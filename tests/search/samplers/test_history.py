"""What a sampler sees of the past: everything while it is short, later the best and the newest."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import TrialState

from search.samplers.bounded_history import BEST, SHOWN, SLACK, BoundedHistory, crowding
from search.samplers.optuna_samplers import distributions, make_sampler
from search.settings import SearchSettings
from tests.search.tiny_studies import tiny_settings

DISTRIBUTIONS = distributions(tiny_settings().search_space().domains)
DIRECTIONS = ["maximize", "minimize", "minimize"]
STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def study_of(values: list[list[float]], storage: optuna.storages.BaseStorage) -> optuna.Study:
    study = optuna.create_study(storage=storage, directions=DIRECTIONS)
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    for one in values:
        study.tell(study.ask(DISTRIBUTIONS), one)
    return study


def made_up(count: int) -> list[list[float]]:
    return np.random.default_rng(1).uniform(size=(count, 3)).tolist()


def numbers(study: optuna.Study) -> list[int]:
    return [trial.number for trial in study.get_trials(deepcopy=False, states=STATES)]


def test_a_short_past_is_seen_whole():
    study = study_of(made_up(SHOWN + SLACK), BoundedHistory())
    assert numbers(study) == list(range(SHOWN + SLACK))


def test_of_a_long_past_the_best_and_the_newest_are_seen():
    values = [[0.5, 0.5, 0.5]] * (SHOWN + SLACK + 1)
    values[3] = [0.9, 0.1, 0.1]  # beats all others
    study = study_of(values, BoundedHistory())
    seen = numbers(study)
    assert len(seen) == SHOWN
    assert seen == sorted(seen)
    assert 3 in seen
    assert seen[-(SHOWN - BEST) :] == list(range(len(values) - (SHOWN - BEST), len(values)))


def test_the_best_are_spread_over_their_front():
    """Its ends are always shown, and of neighbours that say nearly the same only some."""
    crowded = [[0.5 + 0.001 * place, 0.5 + 0.001 * place, 0.5] for place in range(SHOWN + SLACK - 1)]
    seen = numbers(study_of([[0.1, 0.1, 0.5], *crowded, [0.9, 0.9, 0.5]], BoundedHistory()))
    assert len(seen) == SHOWN
    assert {0, SHOWN + SLACK} <= set(seen)


def test_crowding_is_the_distance_of_neighbours_and_without_end_at_the_ends():
    front = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]])
    assert crowding(front).tolist() == [np.inf, 1.5, 1.5, np.inf]
    assert crowding(np.zeros((3, 2))).tolist() == [np.inf, 0.0, np.inf]


def test_every_open_trial_is_seen_and_a_failed_one_never():
    study = study_of([], BoundedHistory())
    waiting = study.ask(DISTRIBUTIONS)
    for one in made_up(SHOWN + 2 * SLACK):
        study.tell(study.ask(DISTRIBUTIONS), one)
    study.tell(study.ask(DISTRIBUTIONS), state=TrialState.FAIL)
    failed = SHOWN + 2 * SLACK + 1
    assert waiting.number in numbers(study)
    assert failed not in [trial.number for trial in study.get_trials(deepcopy=False)]
    study.tell(waiting, [1.0, 0.0, 0.0])  # ends long after the others, and is the best
    assert waiting.number in numbers(study)


def test_any_number_of_trials_can_be_told_whatever_is_shown():
    study = study_of(made_up(SHOWN + SLACK + 10), BoundedHistory())
    assert study.ask(DISTRIBUTIONS).number == SHOWN + SLACK + 10


@pytest.mark.parametrize("told", [40, 200])
def test_the_proposals_are_those_of_plain_tpe_while_the_past_is_short(told: int):
    plain = study_of(made_up(told), optuna.storages.InMemoryStorage())
    bounded = study_of(made_up(told), BoundedHistory())
    common = IntersectionSearchSpace(include_pruned=True)
    for number in range(told, told + 5):
        plain.sampler = optuna.samplers.TPESampler(seed=_seed(number), n_startup_trials=8, multivariate=True)
        bounded.sampler = make_sampler(SearchSettings(sampler="tpe"), 0, number, at_random=False, common=common)
        assert plain.ask(DISTRIBUTIONS).params == bounded.ask(DISTRIBUTIONS).params


def _seed(number: int) -> int:
    return int(np.random.SeedSequence([0, number]).generate_state(1)[0])
