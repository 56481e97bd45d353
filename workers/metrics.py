"""What a network is worth on the images of a split: all figures follow from what it predicted for each of them.

Notable choices:
- A macro average runs over the classes that the split has images of: nothing can be said of the others. This is
  scikit-learn's `balanced_accuracy_score`, and its `f1_score` over these classes; the tests compare the two.
- Predictions are ordered by class, so they compress to a few hundred bytes for thousands of images, and two networks of
  one study can be compared image by image. A file of them is NumPy's own .npz, without pickle.
- The calibration error is that of Guo et al. 2017, "On Calibration of Modern Neural Networks": 15 bins of equal width.

No torch, scikit-learn or SciPy here: controllers and pages read predictions, and these take seconds to import.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Objective = Literal["top1", "balanced_accuracy", "macro_f1"]  # what a study may maximise
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
METRICS = (*OBJECTIVES, "top5", "calibration_error")
NAMES: Mapping[str, str] = {  # of a metric, where people read it
    "top1": "top-1",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "top5": "top-5",
    "calibration_error": "calibration error",
}
TOP5_FROM = 10  # classes: with fewer, half of all guesses are among five
CONFIDENCE_BINS = 15
_FARTHEST = 255  # a true class that is ranked further down is kept as this rank
_ARRAYS = ("images_of_class", "predicted", "rank", "confidence_bins")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network predicted for the N images of a split of K classes; images are ordered by class, then by place.

    Two networks' predictions of one split have the same order, so they can be compared image by image.
    """

    images_of_class: Ints  # (K,)
    predicted: Ints  # (N,), classes
    rank: Ints  # (N,), how many classes were more likely than the true one, at most 255
    confidence_bins: Floats  # (3, 15): of each bin the images, those that were right, and the sum of the confidences

    @classmethod
    def of(cls, logits: Floats, labels: Ints) -> Predictions:
        """Return the predictions behind logits (N, K) for images of these classes, (N,)."""
        tally = PredictionTally(logits.shape[1])
        tally.add(logits, labels)
        return tally.predictions()

    def __len__(self) -> int:
        return len(self.predicted)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Predictions):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in _ARRAYS)

    @cached_property
    def labels(self) -> Ints:
        """The true class of each image, (N,)."""
        return np.repeat(np.arange(len(self.images_of_class)), self.images_of_class)

    @cached_property
    def right(self) -> Mask:
        """Which images were recognised, (N,)."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def confusion(self) -> Ints:
        """How many images of each class (rows) were taken for each class (columns), (K, K)."""
        return confusion_of(self.labels, self.predicted, len(self.images_of_class))

    def metrics(self) -> dict[str, float | None]:
        """Return every one of `METRICS` as a fraction; None for one that these images don't tell."""
        calibration = calibration_error(self.confidence_bins) if len(self) else None
        return {**scores_of(self.confusion), "top5": self._top5(), "calibration_error": calibration}

    def _top5(self) -> float | None:
        if len(self.images_of_class) < TOP5_FROM or not len(self):
            return None
        return float((self.rank < 5).mean())

    def to_bytes(self) -> bytes:
        """Return the predictions as a compressed .npz of NumPy's; the same predictions give the same bytes."""
        largest = len(self.images_of_class) - 1
        arrays = {
            "images_of_class": self.images_of_class.astype(np.int32),
            "predicted": self.predicted.astype(np.uint8 if largest < 256 else np.uint16),
            "rank": self.rank.astype(np.uint8),
            "confidence_bins": self.confidence_bins,
        }
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Predictions:
        """Return the predictions that `to_bytes` wrote.

        Raises:
            ValueError: they are damaged.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                counts, predicted, rank, bins = (file[name] for name in _ARRAYS)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"these predictions are damaged ({type(error).__name__})") from None
        if not (counts.sum() == len(predicted) == len(rank)) or (len(predicted) and predicted.max() >= len(counts)):
            raise ValueError(f"{counts.sum()} images have {len(predicted)} predictions: these are damaged")
        return cls(counts.astype(np.int64), predicted.astype(np.int64), rank.astype(np.int64), bins)


class PredictionTally:
    """Collects what a network predicts, batch by batch in the order of the split."""

    def __init__(self, classes: int) -> None:
        """Begin with nothing; a network may know more `classes` than the images are of."""
        self._classes = classes
        self._labels, self._predicted, self._rank = ([np.zeros(0, dtype=np.int64)] for _ in range(3))
        self._bins = np.zeros((3, CONFIDENCE_BINS))

    def add(self, logits: NDArray[Any], labels: NDArray[Any]) -> None:
        """Count a batch: its logits (n, K) and the true classes (n,)."""
        images, self._classes = np.arange(len(labels)), max(self._classes, logits.shape[1])
        predicted = logits.argmax(axis=1)
        self._labels.append(labels.astype(np.int64))
        self._predicted.append(predicted.astype(np.int64))
        own = logits[images, labels][:, None]
        # Of equal logits the lower class comes first, as in `predicted`: a network without an opinion isn't flattered.
        before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < labels[:, None]))
        self._rank.append(np.minimum(before.sum(axis=1), _FARTHEST).astype(np.int64))
        largest = logits[images, predicted][:, None]
        confidence = 1.0 / np.exp(logits.astype(np.float64) - largest).sum(axis=1)  # softmax of the predicted class
        self._bins += np.stack([_binned(confidence, of) for of in (None, predicted == labels, confidence)])

    def predictions(self) -> Predictions:
        """Return what was collected."""
        labels, predicted, rank = map(np.concatenate, (self._labels, self._predicted, self._rank))
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels, minlength=self._classes)
        return Predictions(counts, predicted[order], rank[order], self._bins)


def _binned(confidence: Floats, weights: NDArray[Any] | None) -> Floats:
    """Return the sum of the weights (None: of ones) in each bin of confidence; 1 belongs to the last."""
    place = np.nan_to_num(confidence * CONFIDENCE_BINS).astype(np.int64).clip(0, CONFIDENCE_BINS - 1)
    return np.bincount(place, weights, minlength=CONFIDENCE_BINS).astype(np.float64)


def confusion_of(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """Return how many images of each class (rows) were taken for each class (columns), (K, K)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def scores_of(confusion: Ints) -> dict[str, float | None]:
    """Return each of `OBJECTIVES` by a confusion matrix (K, K); None of a split without images."""
    marginals = _marginals(confusion)
    if not confusion.any():
        return dict.fromkeys(OBJECTIVES)
    return {objective: score_by_class(objective, *marginals) for objective in OBJECTIVES}


def score_by_class(objective: Objective, right: Ints, images: Ints, taken: Ints) -> float:
    """Return a score by counts of each class, (K,): recognised images, all of its images, all that were taken for it.

    There is at least one image.
    """
    if objective == "top1":
        return float(right.sum() / images.sum())
    seen = images > 0
    parts = right[seen] / images[seen] if objective == "balanced_accuracy" else 2 * right[seen] / (images + taken)[seen]
    return float(parts.mean())


def recalls(confusion: Ints) -> Floats:
    """Return the share of each class's images that was recognised, (K,); NaN of a class without images."""
    right, images, _ = _marginals(confusion)
    return np.where(images > 0, right / np.maximum(images, 1), np.nan)


def precisions(confusion: Ints) -> Floats:
    """Return the share of what was taken for each class that belongs to it, (K,); NaN where nothing was."""
    right, _, taken = _marginals(confusion)
    return np.where(taken > 0, right / np.maximum(taken, 1), np.nan)


def _marginals(confusion: Ints) -> tuple[Ints, Ints, Ints]:
    """Return by class the images that were recognised, all of its images, and all that were taken for it."""
    return np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def calibration_error(confidence_bins: Floats) -> float:
    """Return by how much confidence and accuracy differ: the mean over the images, bin by bin (3, B)."""
    images, right, confidence = confidence_bins
    return float(np.abs(right - confidence).sum() / images.sum())


def wilson_interval(fraction: float, images: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share that was seen on so many images (Wilson 1927)."""
    z2 = 1.959964**2
    middle = (fraction + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * (fraction * (1 - fraction) + z2 / (4 * images)) / images) / (1 + z2 / images)
    return max(0.0, middle - half), min(1.0, middle + half)
