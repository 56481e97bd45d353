"""Whether two networks differ by more than noise: both saw the same images, so they are compared image by image.

Notable choices:
- Top-1 is compared by McNemar's exact test: among the images that only one of the two recognises, two equally good
  networks have an even chance each. It is far sharper than two intervals side by side, because most images are easy or
  hard for both. Source: Dietterich 1998, "Approximate Statistical Tests for Comparing Supervised Classification
  Learning Algorithms".
- Balanced accuracy and macro-F1 aren't counts of images, so they are compared by a randomisation test of the same idea:
  what the two said of an image is swapped at random, and the difference is as likely as it is among such swaps. Its
  random numbers are the same every time.
- A test says whether a difference may be noise of these images; another seed of the training would be a noise of its
  own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from scipy.special import bdtr

from search.store import reader
from search.store.rows import TrialRow
from workers.metrics import NAMES, Ints, Mask, Objective, Predictions, score_by_class

LEVEL = 0.05  # a difference that equally good networks show more often than this is within noise
SWAPS = 1000  # of a randomisation test of two networks
SHUFFLES = 99  # of one against chance
MOST_COMPARED = 50  # networks with the best one
MOST_NAMED = 3


@dataclass(frozen=True)
class PairedTest:
    """How a network's score compares with another's on the same images."""

    only_first: int  # images that only the first one recognises
    only_second: int
    difference: float  # of the scores, the first's minus the second's
    p_value: float  # how often two equally good networks would differ at least as much, in either direction

    @property
    def within_noise(self) -> bool:
        """Whether the networks are as good as each other, as far as these images tell."""
        return self.p_value >= LEVEL

    def __str__(self) -> str:
        return f"{100 * self.difference:+.2f} points, p = {self.p_value:.2g}"


def paired_test(first: Predictions, second: Predictions, objective: Objective = "top1") -> PairedTest:
    """Compare two networks' predictions of the same images by what their study maximises.

    Raises:
        ValueError: they are of different images.
    """
    if not same_images(first, second):
        raise ValueError("two networks can be compared on the same images only, but these are of different splits")
    only_first, only_second = int((first.right & ~second.right).sum()), int((second.right & ~first.right).sum())
    difference = _score(first, objective) - _score(second, objective)
    if objective == "top1":
        p_value = float(mcnemar(np.array(only_first), np.array(only_second)))
    else:
        swapped = _swapped_differences(first, second, objective)
        extreme = (np.abs(swapped) >= abs(difference) - 1e-12).sum()
        p_value = float((1 + extreme) / (1 + SWAPS))
    return PairedTest(only_first, only_second, difference, p_value)


def same_images(first: Predictions, second: Predictions) -> bool:
    """Whether two networks of one study saw the same images: as many of each class."""
    return np.array_equal(first.images_of_class, second.images_of_class)


def mcnemar(only_first: NDArray[np.int64], only_second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the two-sided p-values of McNemar's exact test, by how many images only one of two networks recognises."""
    tail: NDArray[np.float64] = bdtr(np.minimum(only_first, only_second), only_first + only_second, 0.5)
    return np.minimum(1.0, 2 * tail)


def chance_of(network: Predictions, objective: Objective) -> float:
    """Return the best score that is expected without looking at the images.

    For top-1 that is what naming the most frequent class gives; for the two averages over classes, guessing each class
    as often as it occurs, which gives one over the number of classes that have images.
    """
    counts = network.images_of_class
    return float(counts.max() / counts.sum()) if objective == "top1" else 1.0 / int((counts > 0).sum())


def is_above_chance(network: Predictions, objective: Objective) -> bool:
    """Whether a network's score is surely above `chance_of`, by a one-sided test at `LEVEL`.

    Top-1 is compared with naming the most frequent class, image by image; another score with those of the same
    predictions in random order (Ojala and Garriga 2010, "Permutation Tests for Studying Classifier Performance").
    """
    if objective == "top1":
        constant = network.labels == int(np.argmax(network.images_of_class))
        better, worse = int((network.right & ~constant).sum()), int((constant & ~network.right).sum())
        return bool(bdtr(worse, better + worse, 0.5) < LEVEL)
    own = _score(network, objective)
    rng, score = np.random.default_rng(0), _scorer(network, objective)
    shuffled = np.array([score(rng.permutation(network.predicted)) for _ in range(SHUFFLES)])
    as_good = int((shuffled >= own - 1e-12).sum())
    return own > chance_of(network, objective) and (1 + as_good) / (1 + SHUFFLES) < LEVEL


def _score(network: Predictions, objective: Objective) -> float:
    return _scorer(network, objective)(network.predicted)


def _scorer(network: Predictions, objective: Objective) -> Callable[[Ints], float]:
    """Return what gives the score of any predictions, (N,), of the images that a network saw."""
    images, labels = network.images_of_class, network.labels
    classes = len(images)

    def score(predicted: Ints) -> float:
        right = np.bincount(labels[predicted == labels], minlength=classes)
        return score_by_class(objective, right, images, np.bincount(predicted, minlength=classes))

    return score


def _swapped_differences(first: Predictions, second: Predictions, objective: Objective) -> NDArray[np.float64]:
    """Return the differences of the scores, (SWAPS,), when what the two say of each image is swapped at random.

    Only the images that they disagree on are looked at again and again: they are few.
    """
    rng, images, labels = np.random.default_rng(0), first.images_of_class, first.labels
    apart = first.predicted != second.predicted
    one, other, own = first.predicted[apart], second.predicted[apart], labels[apart]

    def counts(predicted: Ints, labels: Ints) -> tuple[Ints, Ints]:
        right = np.bincount(labels[predicted == labels], minlength=len(images))
        return right, np.bincount(predicted, minlength=len(images))

    both_right, both_taken = counts(first.predicted[~apart], labels[~apart])

    def score(predicted: Ints) -> float:
        right, taken = counts(predicted, own)
        return score_by_class(objective, right + both_right, images, taken + both_taken)

    def difference(swap: Mask) -> float:
        return score(np.where(swap, other, one)) - score(np.where(swap, one, other))

    return np.array([difference(rng.random(len(one)) < 0.5) for _ in range(SWAPS)])


def as_good_and_cheaper(engine: sa.Engine, study_id: int, ranked: Sequence[TrialRow]) -> tuple[str, ...]:
    """Return the networks that are as good as the first one within noise and cheaper, each in a sentence.

    Cheaper has a lower median latency or, where none is known, fewer macs; the cheapest come first. A network whose
    predictions aren't recorded isn't compared.

    Args:
        engine: the database.
        study_id: the study.
        ranked: its trained networks, best first.

    Raises:
        StudyDamaged: predictions can't be read.
    """
    if not ranked:
        return ()
    best, others = ranked[0], [row for row in ranked[1 : 1 + MOST_COMPARED] if _cost(row) < _cost(ranked[0])]
    predictions = reader.predictions_of_rows(engine, study_id, [best, *others])
    if best.number not in predictions:
        return ()
    found: list[str] = []
    for row in sorted(others, key=_cost):
        other = predictions.get(row.number)
        if other is not None and same_images(other, predictions[best.number]) and len(found) < MOST_NAMED:
            test = paired_test(other, predictions[best.number], best.objective)
            if test.within_noise:
                share = _cost(row)[0] / _cost(best)[0]
                found.append(
                    f"trial {row.number} is as good within noise ({NAMES[best.objective]} {test}) and takes "
                    f"{share:.0%} of its {'latency' if row.latency is not None else 'macs'}"
                )
    return tuple(found)


def best_words(objective: Objective) -> str:
    """Return what the best network of a study is called: "most accurate", or "network with the best macro-F1"."""
    return "most accurate" if objective == "top1" else f"network with the best {NAMES[objective]}"


def _cost(row: TrialRow) -> tuple[float, int]:
    return (float(row.macs) if row.latency is None else row.latency.median_ms, row.macs)
