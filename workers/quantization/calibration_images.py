"""Which training images a network is calibrated on: a few hundred, each class as often as it is among all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from space.config import CondenseNetConfig
from workers.images.batches import ImageData, Normaliser
from workers.images.splits import Stream, random_words, stratified_subset

CALIBRATION_IMAGES = 256
_MOST_NUMBERS = 1 << 27  # of all images' features at once: half a gigabyte


def calibration_images(images: ImageData, config: CondenseNetConfig) -> tuple[Tensor, Tensor]:
    """Return training images (N, C, H, W) as float32, normalised as in training, and their classes, (N,).

    The same data gives the same images. They are fewer than `CALIBRATION_IMAGES` where there are no more, or where
    their features wouldn't fit into half a gigabyte.
    """
    split = images.train
    widest = max((shape.in_channels + shape.growth) * shape.positions for shape in config.layer_shapes)
    count = min(CALIBRATION_IMAGES, max(8, _MOST_NUMBERS // widest), len(split))
    words = random_words(0, Stream.CALIBRATION, 0, len(split))
    chosen = np.sort(stratified_subset(split.labels, count, words))
    pixels = torch.from_numpy(split.pixels(chosen))
    return Normaliser(images.info)(pixels), torch.from_numpy(split.labels[chosen])
