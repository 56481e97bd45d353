"""The price-aware sampler: the model, the expected gain, and what it proposes in real Optuna studies."""

import itertools
import math
import warnings

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from scipy.special import erfinv

from search.samplers.price_aware.encoding import Encoding
from search.samplers.price_aware.gaussian_process import GaussianProcess, _loss
from search.samplers.price_aware.improvement import Front, expected_improvement
from search.samplers.price_aware.pool import Pool
from search.samplers.price_aware.sampler import PriceAwareSampler
from search.store.vocabulary import ProposalReason

SPACE = {
    "width": IntDistribution(1, 16),
    "depth": IntDistribution(1, 8),
    "rate": FloatDistribution(1e-3, 1.0, log=True),
    "kind": CategoricalDistribution(["plain", "dense", "none"]),
}


def macs(params):
    return float(params["width"] * params["depth"] * {"plain": 1.0, "dense": 2.0, "none": 0.5}[params["kind"]])


def accuracy(params):
    """More macs help, with less and less gain; a rate of 0.1 is the best; `none` costs accuracy."""
    off = (math.log10(params["rate"]) + 1.0) ** 2
    return 1.0 - 0.5 / (1.0 + 0.2 * macs(params)) - 0.05 * off - (0.1 if params["kind"] == "none" else 0.0)


def prices(candidates):
    return [[macs(candidate)] for candidate in candidates]


def study_with(sampler, objectives=2):
    directions = ["maximize", *["minimize"] * (objectives - 1)]
    return optuna.create_study(directions=directions, sampler=sampler)


def searched(sampler, trainings, space=SPACE, value=accuracy):
    study = study_with(sampler)
    for _ in range(trainings):
        trial = study.ask(space)
        study.tell(trial, [value(trial.params), macs(trial.params)])
    return study


# --- the model -----------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    features, values = rng.random((12, 3)), rng.normal(size=12)
    squares = np.stack([(column[:, None] - column) ** 2 for column in features.T])
    prior = np.array([[0.9, 1.2]] * 3 + [[0.0, 1.0], [0.0, 1.0], [-4.0, 1.5]])
    at = np.array([0.3, -0.5, 1.0, 0.2, -0.4, -2.0])
    _, gradient = _loss(at, squares, values, prior)
    for place in range(6):
        step = np.eye(6)[place] * 1e-6
        slope = (_loss(at + step, squares, values, prior)[0] - _loss(at - step, squares, values, prior)[0]) / 2e-6
        assert gradient[place] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_what_a_setting_does_alone_is_learnt_beside_what_two_do_together():
    """Eight settings of which each adds its own share, and two a quick wave of their product (without sums: 0.71)."""
    rng = np.random.default_rng(2)
    features = rng.integers(0, 4, (360, 8)) / 3
    values = np.sin(2.5 * features * np.arange(1, 9) / 4).sum(axis=1) + 1.5 * np.sin(
        6 * features[:, 0] * features[:, 1]
    )
    process = GaussianProcess(features[:60], np.arange(8), values[:60])
    assert np.corrcoef(process.predict(features[60:])[0], values[60:])[0, 1] > 0.95


def test_the_process_finds_what_matters_and_is_less_sure_far_from_what_it_saw():
    rng = np.random.default_rng(0)
    features = rng.random((60, 3))
    process = GaussianProcess(features, np.arange(3), np.sin(5 * features[:, 0]) + rng.normal(0, 0.01, 60))
    asked = rng.random((200, 3))
    mean, deviation = process.predict(asked)
    assert np.abs(mean - np.sin(5 * asked[:, 0])).max() < 0.15
    far = process.predict(np.array([[3.0, 0.5, 0.5]]))[1][0]
    assert far > 5 * np.median(deviation)


def test_believing_a_value_changes_no_mean_and_makes_the_model_surer_there():
    rng = np.random.default_rng(0)
    features = rng.random((20, 2))
    process = GaussianProcess(features, np.arange(2), features.sum(axis=1) ** 2)
    running = np.array([[0.9, 0.1]])
    believed = process.with_believed(running)
    assert believed.predict(running)[0] == pytest.approx(process.predict(running)[0], abs=1e-6)
    assert believed.predict(running)[1][0] < process.predict(running)[1][0]


# --- the expected gain ---------------------------------------------------------------------------------------------


def volume(costs, accuracies, reference_costs, reference):
    """Return the dominated volume, by cutting the whole box into the cells of all values."""
    edges = [sorted({*column.tolist(), end}) for column, end in zip(costs.T, reference_costs, strict=True)]
    total = 0.0
    for cell in itertools.product(*(list(itertools.pairwise(one)) for one in edges)):
        low = np.array([ends[0] for ends in cell])
        inside = accuracies[(costs <= low).all(axis=1)]
        height = max([reference, *inside.tolist()]) - reference
        total += height * math.prod(high - low for low, high in cell)
    return total


def normal_gain(front, costs, mean, deviation):
    """Return what candidates with normal accuracies are expected to add to a front."""
    return front.expected_gain(costs, expected_improvement(mean[:, None], deviation[:, None], front.levels))


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(0, 2**31))
def test_the_expected_gain_is_the_mean_gain_in_volume(costs_count, seed):
    rng = np.random.default_rng(seed)
    costs, accuracies = rng.random((5, costs_count)).round(1), rng.random(5)
    end = np.full(costs_count, 1.05)
    asked = rng.random((3, costs_count)).round(1)
    front = Front(costs, accuracies, end, 0.1)
    sure = np.full(3, 1e-9)
    value = rng.random(3)
    gains = [
        volume(np.vstack([costs, at]), np.append(accuracies, one), end, 0.1) - volume(costs, accuracies, end, 0.1)
        for at, one in zip(asked, value, strict=True)
    ]
    assert normal_gain(front, asked, value, sure) == pytest.approx(gains, abs=1e-6)
    mean, deviation = rng.random(3), np.full(3, 0.2)
    quantiles = (np.arange(4_000) + 0.5) / 4_000
    draws = mean[:, None] + deviation[:, None] * np.sqrt(2) * erfinv(2 * quantiles - 1)
    sampled = [
        np.mean(normal_gain(front, np.repeat(at[None], 4_000, 0), row, np.full(4_000, 1e-9)))
        for at, row in zip(asked, draws, strict=True)
    ]
    assert normal_gain(front, asked, mean, deviation) == pytest.approx(sampled, abs=1e-3)


def test_a_front_of_many_members_is_rounded_to_the_safe_side(monkeypatch):
    rng = np.random.default_rng(0)
    costs = rng.random((60, 2))
    accuracies, end = costs.sum(axis=1) / 2, np.full(2, 1.05)
    exact = Front(costs, accuracies, end, 0.0)
    monkeypatch.setattr("search.samplers.price_aware.improvement.MOST_CELLS", 100)
    coarse = Front(costs, accuracies, end, 0.0)
    asked, mean, deviation = rng.random((50, 2)), rng.random(50), np.full(50, 0.1)
    rounded = normal_gain(coarse, asked, mean, deviation)
    assert (rounded >= normal_gain(exact, asked, mean, deviation) - 1e-12).all()


def test_expected_improvement_of_a_sure_value_is_what_it_is_above_the_level():
    assert expected_improvement(np.array([0.7]), np.array([1e-12]), 0.5)[0] == pytest.approx(0.2)
    assert expected_improvement(np.array([0.3]), np.array([1e-12]), 0.5)[0] == 0.0


# --- candidates as numbers, and which there are ----------------------------------------------------------------------


def test_categories_are_equally_far_apart_and_numbers_keep_their_order():
    space = {"groups": CategoricalDistribution([1, 2, 4, 8]), "kind": CategoricalDistribution(["a", "b", True, 1])}
    encoding = Encoding(space)
    rows = encoding.features([{"groups": groups, "kind": "a"} for groups in (1, 2, 4, 8)])
    assert rows[:, 0] == pytest.approx([0, 1 / 3, 2 / 3, 1])  # powers of two: by their logarithm
    kinds = encoding.features([{"groups": 1, "kind": kind} for kind in ("a", "b", True, 1, "never seen", None)])
    distances = np.linalg.norm(kinds[:, None] - kinds[None], axis=2)
    assert distances[np.triu_indices(5, 1)] == pytest.approx(1.0)
    assert list(encoding.groups) == [0, 0, 1, 1, 1, 1, 1]


def test_a_setting_that_is_not_there_is_told_from_every_value():
    encoding = Encoding({"growth": IntDistribution(4, 12)})
    there, missing = encoding.features([{"growth": 8}, {}])
    assert there[0] == missing[0] == 0.5
    assert np.linalg.norm(there - missing) == pytest.approx(1.0)


@given(st.integers(0, 2**31))
def test_candidates_lie_in_the_space_and_neighbours_differ_in_one_setting(seed):
    rng, pool = np.random.default_rng(seed), Pool(SPACE)
    assert pool.whole() is None
    candidates = pool.random(5, rng)
    near = list(pool.neighbours(candidates, rng))
    for candidate in [*candidates, *near, *pool.crossed(candidates, 20, rng)]:
        assert all(SPACE[name]._contains(SPACE[name].to_internal_repr(value)) for name, value in candidate.items())
    assert all(min(sum(one[name] != other[name] for name in SPACE) for other in candidates) == 1 for one in near)


def test_a_small_space_is_looked_at_as_a_whole():
    space = {
        "a": IntDistribution(1, 3),
        "b": CategoricalDistribution(["x", "y"]),
        "c": FloatDistribution(0, 1, step=0.5),
    }
    whole = Pool(space).whole()
    assert whole is not None
    assert len({tuple(one.values()) for one in whole}) == len(whole) == 18


def test_a_space_of_long_ranges_and_a_real_one_has_no_list():
    space = {f"x_{number}": FloatDistribution(0, 1, step=1e-9) for number in range(40)}
    assert not Pool({**space, "y": FloatDistribution(0, 1)}).listed


def test_where_networks_collapse_the_next_candidates_add_less_and_less():
    edges = {f"edge_{number}": CategoricalDistribution(["skip", "conv", "pool"]) for number in range(5)}

    def convolutions(params):
        return 1.0 + sum(value == "conv" for value in params.values())

    def trained(params):
        return 0.1 if params["edge_0"] == params["edge_1"] == "pool" else 0.9 + 0.01 * convolutions(params)

    sampler = PriceAwareSampler(
        lambda candidates: [[convolutions(one)] for one in candidates], search_space=edges, seed=0
    )
    study = study_with(sampler)
    for number, params in enumerate(Pool(edges).random(14, np.random.default_rng(0))):
        params |= {"edge_0": "pool", "edge_1": "pool"} if number < 2 else {}
        values = [trained(params), convolutions(params)]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=edges, values=values))
    study.ask(edges)
    ahead = sampler.belief().ahead
    assert sampler.view.judged.believed.curve is not None
    assert all(later.gain <= earlier.gain for earlier, later in itertools.pairwise(ahead))
    assert ahead[-1].gain < ahead[0].gain
    assert all(0.1 <= one.mean <= 1.0 for one in ahead)


def test_a_larger_space_is_looked_at_as_a_whole_while_few_trainings_make_that_quick(monkeypatch):
    edges = {f"edge_{number}": CategoricalDistribution(["skip", "conv", "pool", "none"]) for number in range(6)}

    def convolutions(params):
        return 1.0 + sum(value == "conv" for value in params.values())

    sampler = PriceAwareSampler(
        lambda candidates: [[convolutions(one)] for one in candidates], search_space=edges, seed=0
    )
    study = study_with(sampler)
    for number in range(8):
        trial = study.ask(edges)
        if number == 6:
            assert len(sampler.view.priced.candidates) == 4**6 - 6
        study.tell(trial, [convolutions(trial.params) / 7, convolutions(trial.params)])
    monkeypatch.setattr("search.samplers.price_aware.chooser.CELLS", 8 * 4_000)
    study.ask(edges)
    assert 1_000 < len(sampler.view.priced.candidates) < 4_000


# --- studies -------------------------------------------------------------------------------------------------------


def test_it_needs_far_fewer_trainings_than_a_random_search():
    def volume_of(study):
        done = [trial.values for trial in study.trials]
        costs = np.log(np.array([[value[1]] for value in done])) / math.log(256)
        return volume(costs, np.array([value[0] for value in done]), [1.05], 0.3)

    ours = volume_of(searched(PriceAwareSampler(prices, search_space=SPACE, seed=0), 25))
    random = volume_of(searched(optuna.samplers.RandomSampler(seed=0), 150))
    assert ours > random


def test_equal_histories_and_seeds_give_equal_proposals_in_another_process_too():
    first = searched(PriceAwareSampler(prices, search_space=SPACE, seed=3), 12)
    again = study_with(PriceAwareSampler(prices, search_space=SPACE, seed=3))
    again.add_trials(first.trials[:10])
    assert [again.ask(SPACE).params for _ in range(1)] == [first.trials[10].params]
    other = searched(PriceAwareSampler(prices, search_space=SPACE, seed=4), 12)
    assert [trial.params for trial in other.trials] != [trial.params for trial in first.trials]


def test_parallel_workers_get_different_candidates_that_are_worth_training():
    study = searched(PriceAwareSampler(prices, search_space=SPACE, seed=0), 15)
    asked = [study.ask(SPACE).params for _ in range(8)]
    assert len({tuple(params.items()) for params in asked}) == 8
    assert len({round(math.log(macs(params)), 1) for params in asked}) >= 4  # spread along the front, not one cluster


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_what_was_asked_is_never_asked_again_however_it_ended(state):
    space = {"width": IntDistribution(1, 6), "depth": IntDistribution(1, 2), "kind": CategoricalDistribution(["plain"])}
    price = lambda candidates: prices([{**one, "kind": "plain"} for one in candidates])  # noqa: E731
    study = study_with(PriceAwareSampler(price, search_space=space, seed=0))
    asked = set()
    for number in range(12):
        trial = study.ask(space)
        asked.add((trial.params["width"], trial.params["depth"]))
        values = [float(number), macs(trial.params)] if number % 2 else None
        study.tell(trial, values, state=TrialState.COMPLETE if number % 2 else state)
    assert len(asked) == 12
    assert study.ask(space).params.keys() == space.keys()  # nothing is left: drawn at random


def test_limits_are_kept_and_what_can_not_be_built_is_not_proposed():
    def price(candidates):
        return [[math.nan if one["kind"] == "dense" else macs(one)] for one in candidates]

    study = searched(PriceAwareSampler(price, search_space=SPACE, limits=[20.0], seed=0), 20)
    assert all(macs(trial.params) <= 20 and trial.params["kind"] != "dense" for trial in study.trials)
    best = max(trial.values[0] for trial in study.trials)
    assert best > 0.88  # the best inside: 20 macs and a rate of 0.1 give 0.9


def test_where_nothing_is_inside_the_limits_the_nearest_is_proposed(caplog):
    study = searched(PriceAwareSampler(prices, search_space=SPACE, limits=[0.1], seed=0), 3)
    (said,) = (record.message for record in caplog.records if record.name.startswith("search.samplers"))
    assert said.startswith("none of 1000 candidates is inside the limits, the nearest exceeds one by ")
    assert all(macs(trial.params) <= 2 for trial in study.trials)


# Of 5 candidates 2 have at most 20 macs, of 64 one at most 1.5: with fewer, the search begins sooner, and more of it is
# for accuracy alone.
@pytest.mark.parametrize(
    ("limits", "begins", "for_accuracy"),
    [(None, 6, []), ([20.0], 6, [7, 11, 15]), ([1.5], 3, [3, 5, 7, 9, 11, 13, 15])],
)
def test_a_choice_says_why_and_the_next_ones_are_foreseen(limits, begins, for_accuracy):
    sampler = PriceAwareSampler(prices, search_space=SPACE, limits=limits, seed=0)
    study, choices, reached = study_with(sampler), [], []
    for _ in range(16):
        trial = study.ask(SPACE)
        choices.append(sampler.choice)
        reached.append(accuracy(trial.params))
        study.tell(trial, [reached[-1], macs(trial.params)])
    assert [choice.params for choice in choices] == [trial.params for trial in study.trials]
    reasons = [ProposalReason.SPREAD] * begins + [ProposalReason.GAIN] * (16 - begins)
    for place in for_accuracy:
        reasons[place] = ProposalReason.ACCURATE
    assert [choice.reason for choice in choices] == reasons
    assert all(choice.mean is None for choice in choices[:begins])
    judged = list(zip(reached, choices, strict=True))[begins:]
    off = [abs(one - choice.mean) / choice.deviation for one, choice in judged]
    assert np.mean(np.array(off) < 1.96) >= 0.5
    assert all(choice.gain > 0 for choice in choices[begins:])
    belief = sampler.outlook(study, 16)
    assert (belief.trainings, len(study.trials)) == (16, 16)
    assert study.ask(SPACE).params == belief.ahead[0].params
    after = sampler.belief()
    assert [choice.params for choice in after.ahead[:3]] == [choice.params for choice in belief.ahead[1:4]]
    costs, means = np.array([[macs(one.params), one.mean] for one in belief.front]).T
    order = np.argsort(costs)
    assert (np.diff(means[order]) > 0).all()  # dearer members of the front are more accurate
    for foreseen in belief.ahead[1:]:  # the first was asked above
        trial = study.ask(SPACE)
        assert sampler.choice.reason == foreseen.reason
        study.tell(trial, [accuracy(trial.params), macs(trial.params)])


@pytest.mark.parametrize("before", [0, 1])
def test_what_users_enqueue_does_not_change_how_often_a_proposal_is_for_accuracy(before):
    sampler = PriceAwareSampler(prices, search_space=SPACE, limits=[20.0], seed=0)
    study, reasons = study_with(sampler), []
    for number in range(32):
        if users := number % 2 == before:
            study.enqueue_trial({"width": 1 + number // 4, "depth": 1 + number % 3, "rate": 0.1, "kind": "plain"})
        trial = study.ask(SPACE)
        if not users:
            reasons.append(sampler.choice.reason)
        study.tell(trial, [accuracy(trial.params), macs(trial.params)])
    modelled = [place for place, reason in enumerate(reasons) if reason != ProposalReason.SPREAD]
    for_accuracy = [place for place in modelled if reasons[place] == ProposalReason.ACCURATE]
    assert for_accuracy == [place for place in modelled if place % 4 == 3]
    assert len(for_accuracy) >= 3


def test_what_has_failed_is_proposed_less_and_said():
    """Above a rate of 0.3 networks would be the best ones, and diverge."""
    said = []
    sampler = PriceAwareSampler(prices, search_space=SPACE, seed=0, warn=said.append)
    study = study_with(sampler)
    for _ in range(40):
        trial = study.ask(SPACE)
        if trial.params["rate"] > 0.3:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, [accuracy(trial.params) + trial.params["rate"], macs(trial.params)])
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.FAIL) <= 16  # nearly all proposals would lie there if failures taught nothing
    assert any("trainings failed: candidates like them are proposed less" in sentence for sentence in said)


def test_a_trial_that_was_stopped_teaches_with_what_it_would_have_gained():
    space = {"width": IntDistribution(1, 64)}
    price = lambda candidates: [[float(one["width"])] for one in candidates]  # noqa: E731
    study = study_with(PriceAwareSampler(price, search_space=space, seed=0))
    for width in range(1, 60, 6):
        bad = width > 30
        values = None if bad else [0.5 + width / 100, float(width)]
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if bad else TrialState.COMPLETE,
                values=values,
                params={"width": width},
                distributions=space,
                intermediate_values={5: 0.1 if bad else 0.3 + width / 100},
            )
        )
    assert all(study.ask(space).params["width"] < 40 for _ in range(3))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda params: 0.5, "reached the same 0.5"),
        (lambda params: math.nan, "trials so far failed, as one does whose"),
    ],
    ids=["constant", "nan"],
)
def test_accuracies_that_say_nothing_do_no_harm_and_the_cause_is_named_once(value, words):
    said = []
    study = study_with(PriceAwareSampler(prices, search_space=SPACE, warn=said.append, seed=0))
    for _ in range(12):
        trial = study.ask(SPACE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna makes a failed trial of one with NaN, and warns
            study.tell(trial, [value(trial.params), macs(trial.params)])
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 12
    assert len(said) == 1
    assert words in said[0]


def test_repeats_unknown_categories_and_costs_that_changed_are_named_and_taken_as_they_are():
    said, space = [], {"width": IntDistribution(1, 16), "kind": CategoricalDistribution(["plain", "dense"])}
    wider = {**space, "kind": CategoricalDistribution(["plain", "dense", "never seen"])}

    def price(candidates):
        return [[one["width"] * (2.0 if one["kind"] == "dense" else 1.0)] for one in candidates]

    study = study_with(PriceAwareSampler(price, search_space=space, warn=said.append, seed=0))
    trained = [(4, "plain", 4.0), (4, "plain", 4.0), (8, "dense", 24.0), (2, "never seen", 2.0), (16, "plain", 16.0)]
    for number, (width, kind, cost) in enumerate(trained * 2):
        values = [0.5 + width / 50 + number / 1000, cost]
        study.add_trial(
            create_trial(params={"width": width, "kind": kind}, distributions=wider, values=values),
        )
    asked = [study.ask(space).params for _ in range(4)]
    assert len({tuple(params.items()) for params in asked}) == 4
    assert not {tuple(params.values()) for params in asked} & {(width, kind) for width, kind, _ in trained}
    assert [sentence.split(":")[0] for sentence in said] == [
        "some trials have a kind of 'never seen', which the space doesn't offer",
        "6 trials repeat the settings of another",
        "2 trials have known values that differ by more than 5% from what is computed for the same settings now",
    ]


def test_ten_thousand_enqueued_trials_wait_for_no_proposal_and_teach_like_others():
    def no_prices(candidates):
        raise AssertionError("a trial that is enqueued needs no prices")

    study = study_with(PriceAwareSampler(no_prices, search_space=SPACE, seed=0))
    pool = Pool(SPACE).random(10_000, np.random.default_rng(0))
    for params in pool:
        study.enqueue_trial(params)
    first = study.ask(SPACE)
    assert first.params == pool[0]
    study.tell(first, [accuracy(first.params), macs(first.params)])
    study.sampler = PriceAwareSampler(prices, search_space=SPACE, seed=0)
    assert study.ask(SPACE).params == pool[1]


def test_a_study_with_one_objective_is_searched_for_it_alone():
    study = study_with(PriceAwareSampler(lambda candidates: [[] for _ in candidates], search_space=SPACE, seed=0), 1)
    for _ in range(25):
        trial = study.ask(SPACE)
        study.tell(trial, accuracy(trial.params))
    assert study.best_value > 0.97


def test_three_configs_and_no_search_space_at_first(caplog):
    study = optuna.create_study(
        directions=["minimize", "maximize"],
        sampler=PriceAwareSampler(lambda candidates: [[-float(one["x"])] for one in candidates], modelled=0, seed=0),
    )
    study.optimize(lambda trial: (float(x := trial.suggest_int("x", 0, 2)), float(-x)), n_trials=6)
    assert "every candidate was proposed already" in caplog.text
    assert {trial.params["x"] for trial in study.trials[:4]} == {0, 1, 2}
