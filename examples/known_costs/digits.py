"""A plain Optuna objective: how well a multi-layer perceptron reads digits, and how many weights it has.

What it costs is known before it is trained, so the sampler models its accuracy alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers.price_aware.sampler import PriceAwareSampler

PIXELS, CLASSES, EPOCHS = 64, 10, 15
SPACE: dict[str, BaseDistribution] = {
    "layers": IntDistribution(1, 3),
    "width": IntDistribution(2, 128, log=True),
    "activation": CategoricalDistribution(["relu", "tanh"]),
    "learning_rate": FloatDistribution(3e-4, 3e-2, log=True),
}


def weights_of(params: Mapping[str, Any]) -> int:
    """Return the number of weights and biases: exact, and known before training."""
    sizes = [PIXELS, *[params["width"]] * params["layers"], CLASSES]
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))


def price(candidates: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Return what the sampler is told of candidates: the objectives but the first, one row for each."""
    return [[float(weights_of(candidate))] for candidate in candidates]


def accuracy_of(params: Mapping[str, Any]) -> float:
    """Train the classifier; return its accuracy on images that it hasn't seen."""
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    train, unseen, train_labels, unseen_labels = train_test_split(images / 16.0, labels, test_size=0.3, random_state=0)
    classifier = MLPClassifier(
        hidden_layer_sizes=(params["width"],) * params["layers"],
        activation=params["activation"],
        learning_rate_init=params["learning_rate"],
        max_iter=EPOCHS,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so few epochs are wanted
        classifier.fit(train, train_labels)
    return float(classifier.score(unseen, unseen_labels))


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """Return accuracy and number of weights."""
    layers, width = trial.suggest_int("layers", 1, 3), trial.suggest_int("width", 2, 128, log=True)
    params = {
        "layers": layers,
        "width": width,
        "activation": trial.suggest_categorical("activation", ["relu", "tanh"]),
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True),
    }
    return accuracy_of(params), float(weights_of(params))


def study_with(seed: int = 0) -> tuple[optuna.Study, PriceAwareSampler]:
    """Return a new study and its sampler."""
    sampler = PriceAwareSampler(price, search_space=SPACE, seed=seed)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler), sampler
