"""The price-aware sampler with odd arguments, values and settings: it goes on rightly, or says what is wrong."""

import math
import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from search.samplers.price_aware.pool import Pool
from search.samplers.price_aware.sampler import PriceAwareSampler
from search.store.vocabulary import ProposalReason

SPACE = {"x": IntDistribution(1, 50), "y": FloatDistribution(0.0, 1.0)}


def price(candidates):
    return [[float(one["x"])] for one in candidates]


def study_of(directions=("maximize", "minimize"), **arguments):
    """Return a study and the list that the sampler's warnings go to."""
    said = []
    sampler = PriceAwareSampler(**{"price": price, "search_space": SPACE, "seed": 0, "warn": said.append, **arguments})
    return optuna.create_study(directions=list(directions), sampler=sampler), said


def searched(trainings, value=lambda params: params["y"], space=SPACE, **arguments):
    study, said = study_of(**{"search_space": space, **arguments})
    for _ in range(trainings):
        trial = study.ask(space)
        study.tell(trial, [value(trial.params), float(trial.params["x"])])
    return study, said


# --- seeds and enqueued trials -------------------------------------------------------------------------------------


def test_a_seed_is_kept_by_several_threads():
    def objective(trial):
        return trial.suggest_float("y", 0.0, 1.0), float(trial.suggest_int("x", 1, 50))

    alone, together = study_of(seed=7)[0], study_of(seed=7)[0]
    alone.optimize(objective, n_trials=1)
    together.optimize(objective, n_trials=1, n_jobs=2)
    assert together.trials[0].params == alone.trials[0].params
    assert together.sampler.outlook(together, 1) == alone.sampler.outlook(alone, 1)


def test_a_partly_enqueued_trial_counts_as_what_is_asked_while_it_runs_and_after_it_failed():
    """Of four candidates that there are, two are asked: the proposal that was overridden is still to come."""
    space = {"x": IntDistribution(1, 2), "y": IntDistribution(1, 2)}
    for end in (None, TrialState.FAIL):
        study, said = study_of(search_space=space)
        free = study_of(search_space=space)[0].ask(space).params
        study.enqueue_trial({"x": 3 - free["x"]})
        trial = study.ask(space)
        assert trial.params == {"x": 3 - free["x"], "y": free["y"]}
        if end is not None:
            study.tell(trial, state=end)
        others = [study.ask(space).params for _ in range(3)]
        assert len({(one["x"], one["y"]) for one in [trial.params, *others]}) == 4
        assert said == []


def test_what_is_fixed_counts_before_the_objective_has_suggested_it():
    space = {"x": IntDistribution(1, 2), "y": IntDistribution(1, 2)}
    study, _ = study_of(search_space=space)
    free = study_of(search_space=space)[0].ask(space).params
    study.enqueue_trial({"x": 3 - free["x"]})
    running = study.ask()
    running.suggest_int("y", 1, 2)
    others = {tuple(sorted(study.ask(space).params.items())) for _ in range(3)}
    assert running.suggest_int("x", 1, 2) == 3 - free["x"]
    assert tuple(sorted(running.params.items())) not in others
    assert len(others) == 3


def test_an_enqueued_trial_has_no_reason_of_an_earlier_proposal():
    study, _ = study_of()
    study.ask(SPACE)
    assert study.sampler.choice.reason == ProposalReason.SPREAD
    study.enqueue_trial({"x": 3, "y": 0.5})
    assert study.ask(SPACE).params == {"x": 3, "y": 0.5}
    assert study.sampler.choice is None


# --- values that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [math.inf, -math.inf, 1e308, -1e200])
def test_values_that_are_not_finite_or_huge_count_as_failures_and_are_named_once(odd):
    study, said = searched(16, lambda params: params["y"] if params["x"] % 3 else odd)
    first, *failures = said
    assert f"such as {odd:g}, which isn't a finite number up to 1e+100: such a training counts as failed" in first
    assert all("trainings failed" in sentence for sentence in failures)
    choice = study.sampler.choice
    assert math.isfinite(choice.mean)
    assert 0 < choice.deviation < 1
    assert -1 < choice.mean < 2


def test_a_study_without_any_usable_value_is_still_spread_over_the_costs():
    study, said = searched(12, lambda params: -math.inf)
    assert len({trial.params["x"] for trial in study.trials}) >= 8
    assert [sentence.split(" such as")[0] for sentence in said] == ["1 trial has a value"]


def test_observations_without_a_usable_value_are_left_out():
    sound = [({"x": number, "y": number / 20}, number / 20) for number in range(1, 20)]
    odd = [({"x": 5, "y": 0.9}, value) for value in (math.nan, math.inf, 1e250)]
    study, said = study_of(observations=[*sound[:9], *odd, *sound[9:]])
    other, _ = study_of(observations=sound)
    asked = [(one.ask(SPACE).params, one.ask(SPACE).params) for one in (study, other)]
    assert asked[0] == asked[1]
    (sentence,) = said
    assert sentence.startswith("3 observations have values such as nan, which isn't a finite number")


def test_a_stopped_trial_is_raised_by_gains_that_are_numbers():
    """One finished trial has lost its value at the step where another was stopped: the median gain ignores it."""
    study, said = study_of()
    for number, at_step in enumerate([0.3, math.nan, 0.5, 0.6, 0.7, 0.8]):
        params = {"x": number + 1, "y": 0.1 * number}
        values, reported = [0.1 + number / 10, number + 1.0], {3: at_step}
        study.add_trial(create_trial(params=params, distributions=SPACE, values=values, intermediate_values=reported))
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED, params={"x": 9, "y": 0.2}, distributions=SPACE, intermediate_values={3: 0.4}
        )
    )
    study.ask(SPACE)
    assert math.isfinite(study.sampler.choice.mean)
    assert math.isfinite(study.sampler.choice.deviation)
    assert said == []


def test_a_known_value_that_is_infinite_leaves_the_costs_scale_as_it_is():
    study, said = study_of()
    for number in range(8):
        cost = math.inf if number == 4 else number + 1.0
        params = {"x": number + 1, "y": 0.1 * number}
        study.add_trial(create_trial(params=params, distributions=SPACE, values=[number / 10, cost]))
    study.ask(SPACE)
    assert study.sampler.choice.gain > 0
    assert said == [
        "1 trial has a known value that isn't finite: the accuracy teaches, but is on no front; tell the study what "
        "`price` returns."
    ]


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("directions", "limit"), [(("maximize", "minimize"), 1), (("maximize", "maximize"), -1)])
def test_an_infinite_limit_is_none(directions, limit):
    asked = []
    for limits in ([limit * math.inf], [None]):
        study, said = study_of(directions, limits=limits)
        for _ in range(9):
            trial = study.ask(SPACE)
            study.tell(trial, [trial.params["y"], float(trial.params["x"])])
        asked.append([trial.params for trial in study.trials])
        assert said == []
    assert asked[0] == asked[1]


def test_an_infinite_limit_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing is beyond the -inf of an objective that is minimised: None, or inf"):
        study_of(limits=[-math.inf])[0].ask(SPACE)
    with pytest.raises(ValueError, match="nothing is beyond the inf of an objective that is maximised: None, or -inf"):
        study_of(["maximize"] * 2, limits=[math.inf])[0].ask(SPACE)


def test_what_has_no_excess_can_not_be_built():
    study, said = searched(9, excess=lambda cs: [math.nan if one["x"] < 40 else 0.0 for one in cs])
    assert all(trial.params["x"] >= 40 for trial in study.trials)
    assert said == []
    _, said = searched(3, excess=lambda cs: [math.nan for _ in cs])
    assert said == ["every candidate was proposed already, or none can be built: further ones are drawn at random."]


def test_candidates_inside_that_are_used_up_are_not_said_to_be_missing():
    space = {"x": IntDistribution(1, 100)}
    study, said = searched(10, lambda params: params["x"] ** 0.5, space, limits=[8.0])
    assert {trial.params["x"] for trial in study.trials[:8]} == set(range(1, 9))
    assert [trial.params["x"] for trial in study.trials[8:]] == [9, 10]  # the nearest
    assert said == [
        "every candidate inside the limits that was found was proposed already; of 92 others the nearest exceeds one "
        "by 12%: the nearest are tried; widen the space or the limits, or stop the study."
    ]


def test_a_small_excess_is_said_with_the_digits_that_it_has():
    _, said = searched(1, excess=lambda cs: [0.0042] * len(cs))
    assert "the nearest exceeds one by 0.42%: " in said[0]


# --- settings ------------------------------------------------------------------------------------------------------


def test_without_a_space_a_candidate_with_further_settings_is_not_used_up():
    """`b` exists beside five of nine values of `a`: these may be asked again, the four others are asked once each."""
    study, said = study_of(search_space=None, price=lambda cs: [[one["a"]] for one in cs])

    def objective(trial):
        a = trial.suggest_int("a", 1, 9)
        return a**0.5 + (trial.suggest_float("b", 0.0, 1.0) if a > 4 else 0.0), float(a)

    reasons = []
    study.optimize(objective, n_trials=24, callbacks=[lambda study, _: reasons.append(study.sampler.choice)])
    assert all(choice is not None for choice in reasons[1:])  # none but the first is drawn at random
    bare = [trial.params["a"] for trial in study.trials if trial.params["a"] <= 4]
    assert len(bare) == len(set(bare))
    assert len({trial.params["a"] for trial in study.trials[1:]}) >= 7  # no one is asked over and over
    assert said == [
        "not all trials have b, or not alike, so such settings are drawn at random: name them in search_space, and in "
        "canonical where some mean something only beside others."
    ]


def test_choices_that_are_lists_are_told_apart():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna can't keep them in a database
        space = {"k": CategoricalDistribution([[1, 2], [3, 4], [5]]), "x": IntDistribution(1, 3)}
        study, said = searched(9, lambda params: params["x"] + len(params["k"]) / 2, space)
    assert len({repr(trial.params) for trial in study.trials}) == 9
    assert said == []


def test_equal_choices_are_one_candidate():
    """Optuna records 1 for True and 0 for False, so that there are 9 candidates."""
    space = {"k": CategoricalDistribution([1, True, 0, False, "1"]), "x": IntDistribution(1, 3)}
    study, said = searched(9, lambda params: params["x"] + len(str(params["k"])), space)
    assert len({repr(trial.params) for trial in study.trials}) == 9
    assert said == []
    study.ask(space)
    assert len(said) == 1  # every candidate was proposed


@pytest.mark.parametrize("high", [2**63, 2**70])
@pytest.mark.parametrize("step", [1, 2])
def test_whole_numbers_longer_than_an_index_are_searched(high, step):
    space = {"x": IntDistribution(0, high, step=step), "y": FloatDistribution(0.0, 1.0)}
    study, said = searched(9, space=space)
    assert len({trial.params["x"] for trial in study.trials}) == 9
    assert max(trial.params["x"] for trial in study.trials) > high / 4
    assert said == []


def test_neighbours_of_the_ends_of_a_long_range_lie_in_it():
    pool = Pool({"x": IntDistribution(0, 2**63), "s": FloatDistribution(0.0, 1e20, step=0.5)})
    ends = [{"x": 0, "s": 0.0}, {"x": 2**63, "s": 1e20}]
    near = list(pool.neighbours(ends, np.random.default_rng(0)))
    assert len(near) > 8
    assert all(0 <= one["x"] <= 2**63 and 0 <= one["s"] <= 1e20 for one in near)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"limits": 5.0}, r"limits must be a list, of one number or None for each known objective, but got 5\.0"),
        ({"limits": ["a"]}, r"limits must be numbers or None, but got \['a'\]"),
        ({"limits": [5.0], "excess": lambda cs: [0.0] * len(cs)}, "either limits or excess says what is inside"),
        ({"startup": -1}, "startup must be a whole number, 0 or more, but got -1"),
        ({"startup": "6"}, "startup must be a whole number, 0 or more, but got '6'"),
        ({"seed": -1}, "seed must be a whole number, 0 or more, but got -1"),
        (
            {"observations": [({"x": 1}, "good")]},
            "observations must be pairs of a candidate's parameters and its value",
        ),
    ],
)
def test_odd_arguments_are_refused_at_once(more, message):
    with pytest.raises(ValueError, match=message):
        PriceAwareSampler(price, search_space=SPACE, **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"excess": lambda cs: [0.1]}, r"excess must return one number for each of \d+ candidates, .* shape \(1,\)"),
        ({"features": lambda cs: [1.0, 2.0]}, r"features must return one row for each of \d+ candidates, .* \(2,\)"),
        ({"key": lambda one: [one["x"]]}, r"key must return something hashable, but it returned the list \[\d+\]"),
        ({"price": lambda cs: None}, "price must return 1 known objectives for each of"),
        ({"price": lambda cs: [["dear"] for _ in cs]}, "price must return numbers"),
        ({"price": lambda cs: [[1.0], *([[1.0, 2.0]] * (len(cs) - 1))]}, "price must return numbers"),
    ],
)
def test_what_a_function_must_not_return_is_one_sentence(more, message):
    with pytest.raises(ValueError, match=message):
        searched(8, **more)


def test_costs_with_a_row_for_each_objective_are_refused():
    study, _ = study_of(
        ("maximize", "minimize", "minimize"), price=lambda cs: [[one["x"] for one in cs], [one["y"] for one in cs]]
    )
    with pytest.raises(ValueError, match=r"price must return 2 known objectives for each .* shape \(2, \d+\)"):
        study.ask(SPACE)
