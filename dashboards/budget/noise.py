"""Which of the offered networks are as good as each other within noise, as far as the validation images tell.

Two networks whose predictions are recorded are compared image by image, by McNemar's exact test; others by their 95 %
intervals, which must overlap. Only top-1 is compared so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.results.paired import LEVEL, mcnemar, same_images
from workers.metrics import Predictions, wilson_interval


@dataclass(frozen=True)
class Likeness:
    """Which networks are as good as each other, by their places in a list."""

    as_good: tuple[tuple[int, ...], ...]  # for each network the others
    paired: tuple[bool, ...]  # whether its predictions are recorded: two such networks are compared image by image


def likeness(
    numbers: Sequence[int], top1: Sequence[float], images: int | None, predictions: Mapping[int, Predictions]
) -> Likeness:
    """Compare all pairs of some networks.

    Args:
        numbers: of their trials.
        top1: their shares of recognised validation images.
        images: how many validation images there are; None where that isn't known.
        predictions: what they said of the images, by number, as far as it is recorded.
    """
    known = [place for place, number in enumerate(numbers) if number in predictions]
    known = [place for place in known if same_images(predictions[numbers[place]], predictions[numbers[known[0]]])]
    same = _overlapping(top1, images)
    if known:
        rights = np.array([predictions[numbers[place]].right for place in known], dtype=np.float64)  # (m, N)
        only = np.rint(rights @ (1.0 - rights).T).astype(np.int64)  # (m, m), images that the row alone recognises
        same[np.ix_(known, known)] = mcnemar(only, only.T) >= LEVEL
    np.fill_diagonal(same, False)
    paired = np.isin(np.arange(len(numbers)), known)
    return Likeness(tuple(tuple(np.flatnonzero(row).tolist()) for row in same), tuple(paired.tolist()))


def _overlapping(top1: Sequence[float], images: int | None) -> NDArray[np.bool_]:
    """Return whose intervals overlap, (n, n); none do where the number of images isn't known."""
    if not images:
        return np.zeros((len(top1), len(top1)), dtype=bool)
    ends = np.array([wilson_interval(value, images) for value in top1]).reshape(-1, 2)
    low, high = ends[:, 0], ends[:, 1]
    return (low[:, None] <= high[None, :]) & (low[None, :] <= high[:, None])
