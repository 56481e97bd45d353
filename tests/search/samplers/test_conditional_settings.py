"""The price-aware sampler where trials have only some of the settings, or haven't suggested all of them yet."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from search.samplers.price_aware.known import Known
from search.samplers.price_aware.pool import Pool
from search.samplers.price_aware.sampler import PriceAwareSampler
from search.samplers.proposer import Proposer
from space.presets import SPACE_PRESETS
from tests.search.tiny_studies import tiny_settings

SPACE = {
    "kind": CategoricalDistribution(["linear", "net"]),
    "width": IntDistribution(1, 20),
    "depth": IntDistribution(1, 4),
}


def price(candidates):
    return [[1.0 if one["kind"] == "linear" else float(one["width"] * one["depth"])] for one in candidates]


def canonical(candidate):
    return candidate if candidate["kind"] == "net" else {"kind": "linear"}


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """Width and depth exist only for `net`."""
    if trial.suggest_categorical("kind", ["linear", "net"]) == "linear":
        return 0.6, 1.0
    width, depth = trial.suggest_int("width", 1, 20), trial.suggest_int("depth", 1, 4)
    return 1 - 1 / (1 + width * depth**0.5), float(width * depth)


def study_of(**more) -> optuna.Study:
    sampler = PriceAwareSampler(price, **{"search_space": SPACE, "seed": 0, **more})
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


@pytest.mark.parametrize("more", [{}, {"canonical": canonical}], ids=["not told", "told"])
def test_what_an_objective_asks_for_only_sometimes_makes_no_candidate_twice(more):
    study = study_of(**more)
    study.optimize(objective, n_trials=30)
    asked = [tuple(sorted(trial.params.items())) for trial in study.trials]
    assert len(set(asked)) == 30
    assert (("kind", "linear"),) in asked


def test_a_candidate_is_priced_and_keyed_as_its_trial_will_be():
    seen = []

    def priced(candidates):
        seen.extend(dict(one) for one in candidates)
        return price(candidates)

    sampler = PriceAwareSampler(priced, search_space=SPACE, seed=0, canonical=canonical)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=12)
    assert all(one == canonical(one) for one in seen)
    assert {len(one) for one in seen} == {1, 3}


def test_what_is_pruned_before_it_has_suggested_everything_is_not_tried_again_in_other_forms():
    def gated(trial: optuna.Trial) -> tuple[float, float]:
        width = trial.suggest_int("width", 1, 20)
        if width > 10:
            raise optuna.TrialPruned
        depth = trial.suggest_int("depth", 1, 4)
        return float(width * depth), float(width * depth)

    space = {name: SPACE[name] for name in ("width", "depth")}
    sampler = PriceAwareSampler(lambda cs: [[c["width"] * c.get("depth", 1)] for c in cs], search_space=space, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(gated, n_trials=30)
    pruned = [trial.params["width"] for trial in study.trials if trial.state == TrialState.PRUNED]
    assert len(pruned) == len(set(pruned)) <= 10


def test_workers_that_ask_before_others_have_suggested_anything_get_different_candidates():
    study, ready = study_of(), threading.Barrier(4)

    def at_once(trial: optuna.Trial) -> tuple[float, float]:
        ready.wait(60)  # everyone was asked, and no one has suggested anything
        return objective(trial)

    study.optimize(at_once, n_trials=24, n_jobs=4)
    asked = [tuple(sorted(trial.params.items())) for trial in study.trials]
    assert len(set(asked)) == 24


def test_samplers_of_other_processes_that_choose_at_the_same_moment_choose_differently():
    """Each has a sampler of its own, a copy, on one storage: nothing but the storage tells them of each other."""
    first = study_of()
    others = [first, optuna.load_study(study_name=first.study_name, storage=first._storage)]
    others[1].sampler = pickle.loads(pickle.dumps(first.sampler))
    ready = threading.Barrier(2)

    def worker(study: optuna.Study) -> None:
        for _ in range(8):
            ready.wait(60)
            trial = study.ask(SPACE)
            study.tell(trial, [float(trial.params["width"]), price([trial.params])[0][0]])

    threads = [threading.Thread(target=worker, args=(study,)) for study in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(sorted(trial.params.items())) for trial in first.trials}) == 16


def test_a_trial_that_has_suggested_only_some_settings_stops_no_one():
    study = study_of()
    for _ in range(8):
        trial = study.ask()
        study.tell(trial, list(objective(trial)))
    half = study.ask()
    half.suggest_categorical("kind", ["linear", "net"])
    study.enqueue_trial({"kind": "net"})
    enqueued = study.ask()
    enqueued.suggest_categorical("kind", ["linear", "net"])  # nothing was proposed for it
    objective(study.ask())


def test_a_half_suggested_trial_that_died_says_nothing_of_others_like_it():
    study = study_of()
    dead = study.ask()
    dead.suggest_categorical("kind", ["linear", "net"])
    study.tell(dead, state=TrialState.FAIL)
    kinds = set()
    for _ in range(12):
        trial = study.ask()
        study.tell(trial, list(objective(trial)))
        kinds.add(trial.params["kind"])
    assert kinds == {"linear", "net"}


def test_a_study_whose_stages_differ_in_number_models_candidates_as_it_models_trials():
    """A network gets one prediction, whatever settings of stages that it doesn't have a candidate names."""
    proposer = Proposer(tiny_settings(space=SPACE_PRESETS["digits"]))
    prices, rng = proposer._prices, np.random.default_rng(0)
    known = Known(prices.price, None, None, prices.key, prices.features, prices.canonical)
    shorter = 0
    for candidate in Pool(proposer.distributions).random(60, rng):
        reduced = known.reduced(candidate)
        assert prices.key(reduced) == prices.key(candidate)
        assert known.reduced(reduced) == reduced
        config = prices.candidate(candidate).config
        assert reduced.keys() == proposer._params(config, proposer.training_space.from_params(candidate)).keys()
        shorter += len(reduced) < len(candidate)
    assert shorter > 10


def test_proposals_of_such_a_study_have_no_settings_of_stages_that_are_not_there():
    proposer = Proposer(tiny_settings(space=SPACE_PRESETS["digits"]))
    stages = set()
    for _ in range(6):
        new = proposer.ask(None)
        params = proposer._study.get_trials(deepcopy=False)[new.number].params
        assert dict(params) == dict(proposer._prices.canonical(params))
        stages.add(len(new.config.stages))
    assert stages == {2, 3}


# --- spaces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high", "step"), [(0.0, 0.3, 0.1), (0.1, 0.7, 0.1), (0.0, 1.0, 1e-6)])
def test_every_value_of_a_stepped_range_is_one_that_optuna_takes(low, high, step):
    distribution = FloatDistribution(low, high, step=step)
    pool = Pool({"share": distribution})
    rng = np.random.default_rng(0)
    drawn = pool.random(50, rng)
    for candidate in [*drawn, *pool.neighbours(drawn[:3], rng), *(pool.whole() or ())]:
        assert distribution._contains(distribution.to_internal_repr(candidate["share"]))
    if pool.whole():
        assert pool.whole()[-1]["share"] == high


def test_a_setting_with_one_value_reaches_every_function_of_the_user():
    space = {"width": IntDistribution(1, 9), "kind": CategoricalDistribution(["only"]), "depth": IntDistribution(3, 3)}

    def priced(candidates):
        return [[one["width"] * one["depth"] * len(one["kind"])] for one in candidates]

    sampler = PriceAwareSampler(
        priced, search_space=space, seed=0, key=lambda one: (one["kind"], one["width"]), features=priced
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(9):
        trial = study.ask(space)
        study.tell(trial, [trial.params["width"] ** 0.5, priced([trial.params])[0][0]])
    assert sorted(trial.params["width"] for trial in study.trials) == list(range(1, 10))


def test_a_word_among_numbers_counts_as_a_category_of_its_own(caplog):
    space = {"width": CategoricalDistribution([1, 2, 4])}
    sampler = PriceAwareSampler(lambda cs: [[len(str(c["width"]))] for c in cs], search_space=space, seed=0, startup=1)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    other = CategoricalDistribution([1, 2, 4, "auto"])
    study.add_trial(optuna.create_trial(params={"width": "auto"}, distributions={"width": other}, values=[0.5, 4]))
    study.tell(study.ask(space), [0.7, 1])
    study.ask(space)
    assert "'auto'" in caplog.text


# --- what is said --------------------------------------------------------------------------------------------------


def test_a_minimised_objective_is_predicted_with_its_own_sign():
    sampler = PriceAwareSampler(price, search_space=SPACE, seed=0)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for _ in range(12):
        trial = study.ask()
        value, cost = objective(trial)
        study.tell(trial, [100 * (2 - value), cost])
    assert sampler.choice.mean > 50
    assert sampler.belief().front[0].mean > 50


def test_draws_of_other_parameters_depend_on_seed_and_trial_alone():
    def drawn(studies):
        values = []
        for _ in range(6):
            study = studies(values)
            trial = study.ask()
            value, cost = objective(trial)
            values.append(trial.suggest_float("other", 0, 1))
            study.tell(trial, [value, cost])
        return values

    one = study_of()
    whole = drawn(lambda values: one)
    trials = optuna.create_study(directions=["maximize", "minimize"])

    def anew(values):  # a process of its own for every trial
        trials.sampler = PriceAwareSampler(price, search_space=SPACE, seed=0)
        return trials

    assert drawn(anew) == whole
    assert len(set(whole)) == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"modelled": 5}, "one of the study's 2 objectives"),
        ({"limits": [1.0, 2.0]}, "each of the study's 1 known objectives, but got 2"),
        ({"price": lambda cs: [[1.0, 2.0]] * len(cs)}, "price must return 1 known objectives for each"),
        ({"price": lambda cs: [[c["missing"]] for c in cs]}, "needs 'missing'"),
    ],
)
def test_what_does_not_fit_the_study_is_one_sentence(more, message):
    sampler = PriceAwareSampler(**{"price": price, "search_space": SPACE, "seed": 0, **more})
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    with pytest.raises(ValueError, match=message):
        study.ask(SPACE)


def test_a_limit_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="limits must be numbers or None"):
        PriceAwareSampler(price, limits=[float("nan")])


def test_a_study_that_tells_its_costs_in_another_form_is_told_so(caplog):
    study = study_of()
    for _ in range(8):
        trial = study.ask()
        value, cost = objective(trial)
        study.tell(trial, [value, 10 + cost])
    assert "a trial has known values that differ" in caplog.text
    assert "mixes two scales" in caplog.text
