"""Which image is in which split: by hand where it was put into one, else a pure function of labels, groups and seed.

Random choices come from raw 64-bit words, which NumPy promises for every version (`random_words`), so the same seed
gives the same splits everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workers.images.source import Details, Labels
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
    CALIBRATION = 6


class Places(NamedTuple):
    """Which image is in which split. `test` is None where the data set has a test split of its own."""

    train: Positions
    validation: Positions
    test: Positions | None


def place(labels: Labels, settings: DataSettings, has_test: bool, details: Details | None = None) -> Places:
    """Split training images by what was done by hand, or else by the settings' fractions and seed.

    A test split is made first unless there is one; of what remains at most `settings.images` are used, and out of these
    the validation split is held: a fraction, or one of the folds. Images that were put into the validation split by
    hand are in no other, and are as large a share of those that are used.
    """
    by_hand = None if details is None else details.validation
    rest, test = _rest_and_test(labels, settings, has_test, details)
    if by_hand is not None:
        return Places(rest[~by_hand[rest]], rest[by_hand[rest]], test)
    words = random_words(settings.split_seed, Stream.VALIDATION_SPLIT, 0, len(rest))
    groups = None if details is None or details.groups is None else _codes(details.groups)[rest]
    if settings.folds is not None:
        is_held = folds_of(labels[rest], groups, settings.folds, words) == settings.fold
        return Places(rest[~is_held], rest[is_held], test)
    kept, held = _holdout(labels[rest], groups, settings.validation_fraction, words)
    return Places(rest[kept], rest[held], test)


def _rest_and_test(
    labels: Labels, settings: DataSettings, has_test: bool, details: Details | None
) -> tuple[Positions, Positions | None]:
    """Return the images that are for training and validation, and those of the test split if one is made."""
    by_hand = None if details is None else details.validation
    groups = None if details is None or details.groups is None else _codes(details.groups)
    rest, test = np.arange(len(labels)), None
    if not has_test:
        pool = rest if by_hand is None else np.flatnonzero(~by_hand)
        words = random_words(settings.split_seed, Stream.TEST_SPLIT, 0, len(pool))
        kept, held = _holdout(labels[pool], None if groups is None else groups[pool], settings.test_fraction, words)
        test = pool[held]
        rest = pool[kept] if by_hand is None else np.sort(np.concatenate([pool[kept], np.flatnonzero(by_hand)]))
    if settings.images is not None and settings.images < len(rest):
        words = random_words(settings.split_seed, Stream.SUBSET, 0, len(rest))
        of_rest = None if by_hand is None else by_hand[rest]
        rest = rest[_subset(labels[rest], of_rest, settings.images, words)]
    return rest, test


def most_folds(labels: Labels, settings: DataSettings, has_test: bool, details: Details | None = None) -> int:
    """Return the largest number of folds, up to that of the settings, each of which can be a validation split.

    It can be if it has an image, and the others have images of two classes. Less than 2: no number of folds can be.
    """
    assert settings.folds is not None
    rest, _ = _rest_and_test(labels, settings, has_test, details)
    groups = None if details is None or details.groups is None else _codes(details.groups)[rest]
    words = random_words(settings.split_seed, Stream.VALIDATION_SPLIT, 0, len(rest))
    classes, codes = np.unique(labels[rest], return_inverse=True)
    for folds in range(settings.folds, 1, -1):
        cells = (folds_of(labels[rest], groups, folds, words) + 1) * len(classes) + codes
        counts = np.bincount(cells, minlength=(folds + 1) * len(classes)).reshape(folds + 1, len(classes))
        learned = ((counts.sum(axis=0) - counts[1:]) > 0).sum(axis=1)  # classes of which other folds have images
        if counts[1:].any(axis=1).all() and (learned > 1).all():
            return folds
    return 1


def _subset(
    labels: Labels, by_hand: npt.NDArray[np.bool_] | None, size: int, words: npt.NDArray[np.uint64]
) -> Positions:
    """Return `size` sorted positions with each class's share, and that of the images `by_hand` in validation."""
    if by_hand is None or size < 2:
        return stratified_subset(labels, size, words)
    parts = np.flatnonzero(~by_hand), np.flatnonzero(by_hand)
    held = int(np.clip(round(size * by_hand.mean()), max(1, size - len(parts[0])), min(size - 1, len(parts[1]))))
    chosen = [
        part[stratified_subset(labels[part], count, words[part])]
        for part, count in zip(parts, (size - held, held), strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _codes(groups: Sequence[str]) -> Labels:
    """Return a number for each image's group, (N,)."""
    return np.unique(np.array(groups, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def _holdout(
    labels: Labels, groups: Labels | None, fraction: float, words: npt.NDArray[np.uint64]
) -> tuple[Positions, Positions]:
    if groups is None:
        return stratified_holdout(labels, fraction, words)
    return grouped_holdout(labels, groups, fraction, words)


def grouped_holdout(
    labels: Labels, groups: Labels, fraction: float, words: npt.NDArray[np.uint64]
) -> tuple[Positions, Positions]:
    """Return sorted positions (kept, held) with every group on one side, near the `fraction` of every class held.

    Groups are taken at random; one is held if that brings the shares of the classes nearer to the fraction, and leaves
    images of each of its classes.

    Args:
        labels: (N,).
        groups: (N,), equal numbers are of one group.
        fraction: between 0 and 1.
        words: (N,) random.
    """
    counts = np.bincount(labels).astype(np.float64)
    members = _members(groups)
    held_counts, is_held = np.zeros_like(counts), np.zeros(len(labels), dtype=bool)
    for index in np.argsort([words[of_group].min() for of_group in members], kind="stable"):
        present, here = np.unique(labels[members[index]], return_counts=True)
        now, total = held_counts[present], counts[present]
        nearer = (((now + here) / total - fraction) ** 2).sum() < ((now / total - fraction) ** 2).sum()
        if nearer and (now + here < total).all():
            held_counts[present] += here
            is_held[members[index]] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


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


def folds_of(labels: Labels, groups: Labels | None, folds: int, words: npt.NDArray[np.uint64]) -> Labels:
    """Return which fold each image is validated in, (N,); -1: in none, as it is the only image or group of its class.

    Folds are as large as each other, and each has its share of every class, up to an image; with groups, as nearly as
    whole groups allow.

    Args:
        labels: (N,).
        groups: (N,), equal numbers are of one group; None: no groups.
        folds: how many.
        words: (N,) random.
    """
    fold = np.full(len(labels), -1, dtype=np.int64)
    if groups is None:
        order, _ = _ranks_in_class(labels, words)
        order = order[np.bincount(labels)[labels[order]] > 1]
        fold[order] = np.arange(len(order)) % folds
        return fold
    counts = np.bincount(labels).astype(np.float64)
    members = _members(groups)
    by_size = sorted(members, key=lambda of_group: (-len(of_group), words[of_group].min()))
    filled = np.zeros((folds, len(counts)))
    for of_group in by_size:
        present, here = np.unique(labels[of_group], return_counts=True)
        if (here == counts[present]).any():
            continue
        emptiest = int((filled[:, present] / counts[present]).sum(axis=1).argmin())
        filled[emptiest, present] += here
        fold[of_group] = emptiest
    return fold


def _members(groups: Labels) -> list[Positions]:
    """Return the images of each group."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []


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
