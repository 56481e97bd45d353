"""Two networks on the same images: McNemar's exact test, and its kin for scores that are no counts of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from search.results.paired import chance_of, is_above_chance, mcnemar, paired_test
from workers.metrics import Objective, Predictions

LABELS = np.repeat(np.arange(3), (60, 30, 10))


def saying(predicted: np.ndarray, labels: np.ndarray = LABELS, classes: int = 3) -> Predictions:
    return Predictions.of(np.eye(classes)[predicted], labels)


def flawed(errors: int, seed: int) -> Predictions:
    """A network that takes so many images, chosen at random, for the next class."""
    predicted = LABELS.copy()
    wrong = np.random.default_rng(seed).choice(len(LABELS), errors, replace=False)
    predicted[wrong] = (predicted[wrong] + 1) % 3
    return saying(predicted)


@given(st.integers(0, 80), st.integers(0, 80))
def test_the_p_value_is_that_of_an_even_coin(only_first: int, only_second: int) -> None:
    found = float(mcnemar(np.array(only_first), np.array(only_second)))
    n = only_first + only_second
    assert found == pytest.approx(binomtest(only_first, n, 0.5).pvalue if n else 1.0)


def test_networks_that_err_on_the_same_images_differ_by_less_than_two_intervals_would_allow() -> None:
    """92 and 86 of 100 are within each other's intervals, and yet one is better: it errs only where the other does."""
    worse = flawed(14, 1)
    better_predicted = worse.predicted.copy()
    better_predicted[np.flatnonzero(~worse.right)[:6]] = LABELS[np.flatnonzero(~worse.right)[:6]]
    test = paired_test(saying(better_predicted), worse)
    assert (test.only_first, test.only_second) == (6, 0)
    assert test.difference == pytest.approx(0.06)
    assert test.p_value == pytest.approx(2 / 2**6)
    assert not test.within_noise
    assert paired_test(flawed(14, 2), flawed(13, 3)).within_noise


@pytest.mark.parametrize("objective", ["balanced_accuracy", "macro_f1"])
def test_other_scores_are_compared_as_scipys_permutations_do(objective: Objective) -> None:
    first, second = flawed(6, 4), flawed(16, 5)

    def score(predicted: np.ndarray) -> float:
        right, taken = (np.bincount(one, minlength=3) for one in (LABELS[predicted == LABELS], predicted))
        sizes = np.bincount(LABELS)
        return float(np.mean(right / sizes if objective == "balanced_accuracy" else 2 * right / (sizes + taken)))

    found = paired_test(first, second, objective)
    reference = permutation_test(
        (first.predicted, second.predicted),
        lambda a, b: score(a) - score(b),
        permutation_type="samples",
        n_resamples=2000,
        vectorized=False,
        rng=np.random.default_rng(1),
    )
    assert found.difference == pytest.approx(reference.statistic)
    assert found.p_value == pytest.approx(reference.pvalue, abs=0.05)
    assert found == paired_test(first, second, objective)  # the same random numbers every time


def test_a_network_differs_from_itself_by_nothing() -> None:
    for objective in ("top1", "balanced_accuracy", "macro_f1"):
        test = paired_test(flawed(9, 1), flawed(9, 1), objective)
        assert (test.difference, test.p_value, test.within_noise) == (0.0, 1.0, True)


def test_networks_of_different_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="on the same images only"):
        paired_test(flawed(1, 1), saying(np.zeros(5, int), np.array([0, 0, 1, 1, 2])))


@pytest.mark.parametrize("objective", ["top1", "balanced_accuracy", "macro_f1"])
def test_a_network_that_names_one_class_or_guesses_is_not_above_chance(objective: Objective) -> None:
    guesses = saying(np.random.default_rng(0).permutation(LABELS))
    assert not is_above_chance(saying(np.zeros_like(LABELS)), objective)
    assert not is_above_chance(guesses, objective)
    assert is_above_chance(flawed(15, 0), objective)


def test_chance_is_the_best_that_can_be_had_without_looking() -> None:
    assert chance_of(flawed(9, 1), "top1") == pytest.approx(0.6)
    rng = np.random.default_rng(3)
    for objective in ("balanced_accuracy", "macro_f1"):
        assert chance_of(flawed(9, 1), objective) == pytest.approx(1 / 3)
        guessing = [saying(rng.permutation(LABELS)).metrics()[objective] for _ in range(300)]
        naming_one = saying(np.zeros_like(LABELS)).metrics()[objective]
        assert np.mean(guessing) == pytest.approx(1 / 3, abs=0.01)
        assert naming_one <= 1 / 3 + 1e-9


def test_on_a_rare_class_a_network_may_have_learnt_something_that_top1_does_not_show() -> None:
    """It finds all ten images of the rarest class, and pays with as many of the most frequent one."""
    predicted = np.zeros_like(LABELS)
    predicted[LABELS == 2] = 2
    predicted[:10] = 2
    assert not is_above_chance(saying(predicted), "top1")
    assert is_above_chance(saying(predicted), "balanced_accuracy")
