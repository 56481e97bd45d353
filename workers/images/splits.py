"""Which image is in which split: a pure function of the labels and the settings' fractions and seed.

Random choices come from raw 64-bit words, which NumPy promises for every version (`random_words`), so the same seed
gives the same splits everywhere.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workers.images.source import Labels
from workers.settings import DataSettings

Positions = npt.NDArray[np.int64]  # of images in a published split


class Stream(IntEnum):
    """What random words are for: equal seeds must not tie one purpose's choices to another's."""

    TEST_SPLIT = 0
    VALIDATION_SPLIT = 1
    EPOCH_ORDER = 2
    AUGMENTATION = 3
    SUBSET = 4
    VARIATION = 5


class Places(NamedTuple):
    """Which image is in which split. `test` is None where the data set has a test split of its own."""

    train: Positions
    validation: Positions
    test: Positions | None


def place(labels: Labels, settings: DataSettings, has_test: bool) -> Places:
    """Split training images by the settings' fractions and seed.

    A test split is made first unless there is one; of what remains at most `settings.images` are used, and out of these
    the validation split is held.
    """
    rest, test = np.arange(len(labels)), None
    if not has_test:
        words = random_words(settings.split_seed, Stream.TEST_SPLIT, 0, len(labels))
        rest, test = stratified_holdout(labels, settings.test_fraction, words)
    if settings.images is not None and settings.images < len(rest):
        words = random_words(settings.split_seed, Stream.SUBSET, 0, len(rest))
        rest = rest[stratified_subset(labels[rest], settings.images, words)]
    words = random_words(settings.split_seed, Stream.VALIDATION_SPLIT, 0, len(rest))
    kept, held = stratified_holdout(labels[rest], settings.validation_fraction, words)
    return Places(rest[kept], rest[held], test)


def stratified_holdout(labels: Labels, fraction: float, words: npt.NDArray[np.uint64]) -> tuple[Positions, Positions]:
    """Return sorted positions (kept, held): of each class, the `fraction` with the smallest random words is held.

    A class with two images or more has at least one on both sides; an only image is kept.
    """
    counts = np.bincount(labels)
    held_counts = np.clip(np.rint(counts * fraction), 1, np.maximum(counts - 1, 1))
    held_counts[counts < 2] = 0
    order, rank = _ranks_in_class(labels, words)
    is_held = rank < held_counts[labels[order]]
    return np.sort(order[~is_held]), np.sort(order[is_held])


def stratified_subset(labels: Labels, size: int, words: npt.NDArray[np.uint64]) -> Positions:
    """Return `size` sorted positions, chosen at random, with each class's share as in `labels`.

    Image k of a class of n, in random order, is taken at (k + 1/2) / n of the way; the first `size` on the way are
    kept. So no class differs from its share by more than rounding.
    """
    order, rank = _ranks_in_class(labels, words)
    way = (rank + 0.5) / np.bincount(labels)[labels[order]]
    taken = np.lexsort((words[order], way))[:size]
    return np.sort(order[taken])


def _ranks_in_class(labels: Labels, words: npt.NDArray[np.uint64]) -> tuple[Positions, Positions]:
    """Return the positions by class, then at random, and the rank of each within its class."""
    counts = np.bincount(labels)
    order = np.lexsort((words, labels))
    return order, np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]


def random_words(seed: int, stream: Stream, index: int, size: int | tuple[int, ...]) -> npt.NDArray[np.uint64]:
    """Return uniform 64-bit words that depend on (seed, stream, index) alone.

    Raw words, as NumPy promises these for every version, but not what its distributions make of them.
    """
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(int(stream), index))).random_raw(size)
