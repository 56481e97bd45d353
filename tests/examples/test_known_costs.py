"""The example of a plain Optuna study: what is known before training is exact, and its pictures show what was found."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from sklearn.neural_network import MLPClassifier

from examples.known_costs import __main__ as command
from examples.known_costs import pictures
from examples.known_costs.digits import CLASSES, PIXELS, SPACE, accuracy_of, objective, weights_of
from examples.known_costs.pictures import (
    RESULTS,
    START,
    choice_figure,
    efficiency_figure,
    search_info,
    start_figure,
)
from search.samplers.price_aware.belief import Choice
from search.samplers.price_aware.pool import Pool
from search.store.vocabulary import ProposalReason
from tests.dashboards.panels.panel_studies import is_sound


def made_up(params):
    return 1.0 - 5.0 / (10.0 + math.sqrt(weights_of(params))) - 0.05 * abs(math.log10(params["learning_rate"]) + 2.0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_known_number_of_weights_is_the_trained_classifiers(layers: int):
    params = {"layers": layers, "width": 7}
    rows = np.zeros((CLASSES, PIXELS))
    labels = np.arange(CLASSES)
    classifier = MLPClassifier((7,) * layers).partial_fit(rows, labels, classes=labels)
    assert weights_of(params) == sum(part.size for part in (*classifier.coefs_, *classifier.intercepts_))


def test_the_objective_asks_for_the_space_that_the_sampler_is_told():
    fixed = {"layers": 1, "width": 2, "activation": "relu", "learning_rate": 0.01}
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.enqueue_trial(fixed)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.distributions == SPACE
    assert trial.values == [accuracy_of(fixed), weights_of(fixed)]


def test_the_command_says_of_each_training_why_it_was_chosen(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["known_costs", "--trainings", "8"])
    monkeypatch.setattr("examples.known_costs.digits.accuracy_of", made_up)
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("; ")[1].split(",")[0] for line in lines[:8]] == ["spread"] * 6 + ["gain"] * 2
    assert "no classifier is better and smaller than one of these:" in lines


@pytest.mark.parametrize("wrong", [["--trainings", "0"], ["--trainings", "-1"], ["--seed", "-1"], ["--seed", "x"]])
def test_a_number_that_makes_no_search_is_refused_in_one_line(wrong, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["known_costs", *wrong])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert exit_.value.code == 2
    assert f"argument {wrong[0]}: must be a whole number of at least" in capsys.readouterr().err.splitlines()[-1]


def test_pictures_of_a_search_without_a_model_are_refused_and_with_the_first_they_are_drawn(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pictures", "--trainings", str(START - 1)])
    with pytest.raises(SystemExit) as exit_:
        pictures.main()
    assert exit_.value.code == 2
    assert f"must be a whole number of at least {START}" in capsys.readouterr().err.splitlines()[-1]
    assert len(search_info(START, made_up).trained[0]) == START


def test_what_is_predicted_stays_an_accuracy():
    assert (
        command.why(Choice({}, ProposalReason.GAIN, mean=0.9, deviation=0.02))
        == "gain, predicted 90.0 % (86.1 to 93.9 %)"
    )
    assert (
        command.why(Choice({}, ProposalReason.GAIN, mean=1.048, deviation=0.16))
        == "gain, predicted 100.0 % (73.4 to 100.0 %)"
    )
    assert (
        command.why(Choice({}, ProposalReason.GAIN, mean=-0.1, deviation=0.1)) == "gain, predicted 0.0 % (0.0 to 9.6 %)"
    )


def test_the_pictures_show_the_search_and_every_sampler_of_the_benchmark():
    info = search_info(9, made_up)
    log_costs = np.sort(np.log(info.spread))
    assert len(log_costs) == START
    assert np.diff(log_costs).max() < 0.6 * (log_costs[-1] - log_costs[0])
    assert info.chosen[2] == info.candidates[1].max() > 0
    result = {"peers": {name: {"median": {"10": 0.7, "20": 0.9}} for name in ("random", "tpe", "price-aware")}}
    efficiency = efficiency_figure({"one table": result, "another": result})
    for figure in (start_figure(info), choice_figure(info), efficiency):
        is_sound(figure)
    assert len(efficiency.data) == 6
    assert efficiency.layout.xaxis2.title.text == "trainings (another)"
    assert list(RESULTS.glob("sample_efficiency_*.json"))


def test_the_space_is_too_large_to_be_looked_at_as_a_whole():
    assert Pool(SPACE).whole() is None
