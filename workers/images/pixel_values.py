"""What pixels of a data set mean: their type, the range that is scaled to 0..1, mean and deviation in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from space.errors import DataNotFound
from workers.images.source import Images
from workers.images.splits import Positions
from workers.preprocessing import LARGEST, PixelType
from workers.settings import DataSettings

_TOGETHER = 1024  # images looked at at once


class PixelStatistics(NamedTuple):
    """`mean` and `std` are per channel, of training pixels scaled from `pixel_range` to 0..1, those beyond clipped.

    A channel that never varies has std 1, so normalising it gives zeros.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_type: PixelType = "uint8"
    pixel_range: tuple[float, float] = (0.0, 255.0)


def pixel_statistics(images: Images, positions: Positions, settings: DataSettings, label: str) -> PixelStatistics:
    """Return the statistics of the chosen images, from exact counts of all values that a pixel can have.

    The range is what the settings say; or else, of 8-bit pixels all their values, and of 16-bit ones those that occur.

    Raises:
        DataNotFound: the settings' range ends beyond what a pixel of these images can be.
    """
    pixel_type: PixelType = "uint16" if images.dtype == np.uint16 else "uint8"
    largest = LARGEST[pixel_type]
    histogram = _histogram(images, positions, largest + 1)
    used = np.flatnonzero(histogram.sum(axis=0))
    low, high = range_of(int(used[0]), int(used[-1]), pixel_type, settings, label)
    values = (np.clip(np.arange(largest + 1), low, high) - low) / (high - low)
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ values
    variance = (share * (values - mean[:, None]) ** 2).sum(axis=1)
    varies = [len(np.unique(values[counts > 0])) > 1 for counts in histogram]
    std = np.where(varies, np.sqrt(variance), 1.0)
    return PixelStatistics(tuple(mean.tolist()), tuple(std.tolist()), pixel_type, (low, high))


def range_of(
    darkest: int, brightest: int, pixel_type: PixelType, settings: DataSettings, label: str
) -> tuple[float, float]:
    """Return the range of pixels that is scaled to 0..1, of training images that hold these values at most.

    Raises:
        DataNotFound: the settings' range ends beyond what a pixel of these images can be.
    """
    largest = LARGEST[pixel_type]
    if settings.range is not None:
        if settings.range[1] > largest:
            raise DataNotFound(
                f"data.range must lie within 0 to {largest}, the values of a pixel of {label}, but is "
                f"{list(settings.range)}; correct it."
            )
        return settings.range
    if largest == LARGEST["uint8"]:
        return 0.0, float(largest)
    low, high = float(darkest), float(brightest)
    return (low, high) if low < high else (low, low + 1)


def _histogram(images: Images, positions: Positions, values: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return how often each channel of the chosen images has each value, (C, values)."""
    histogram = np.zeros((images.shape[1], values), dtype=np.int64)
    for start in range(0, len(positions), _TOGETHER):
        block = images[positions[start : start + _TOGETHER]]
        for channel in range(images.shape[1]):
            histogram[channel] += np.bincount(block[:, channel].ravel(), minlength=values)
    return histogram
