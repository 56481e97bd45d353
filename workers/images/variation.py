"""Random changes of training images beyond crop and mirror: torchvision's transforms, each image by its own chance.

Notable choices:
- Everything follows from one random word a batch, so a training that is resumed sees the same images.
- torchvision draws once for a whole batch, so images are changed one by one; only blending works on batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from workers.settings import TrainingSettings


class Variation:
    """The changes that a training's settings ask for.

    Args:
        training: the settings.
        size: (H, W) of the images.
        classes: how many there are.
    """

    def __init__(self, training: TrainingSettings, size: tuple[int, int], classes: int) -> None:
        changes, blends = _changes(training, size), _blends(training, classes)
        self._change: Any = changes[0] if len(changes) == 1 else _composed(changes) if changes else None
        self._blends = blends

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return self._change is not None or bool(self._blends)

    def changed(self, images: Tensor, word: int) -> Tensor:
        """Return images (N, C, H, W) uint8, each changed by its own chance; `word` decides how."""
        if self._change is None:
            return images
        with _drawn_from(word):
            return torch.stack([self._change(image) for image in images])

    def blended(self, images: Tensor, labels: Tensor, word: int) -> tuple[Tensor, Tensor]:
        """Return normalised images (N, C, H, W) blended with each other, and the classes' shares (N, classes).

        Labels are (N,) or shares; where nothing is blended they are returned as they are.
        """
        if not self._blends:
            return images, labels
        with _drawn_from(word):
            blend = self._blends[int(torch.randint(len(self._blends), ()))]
            return cast(tuple[Tensor, Tensor], blend(images, labels))


@contextmanager
def _drawn_from(word: int) -> Iterator[None]:
    """Let torch draw what follows from `word`, and leave its own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(word % 2**63)
        yield


def _composed(changes: list[Any]) -> Any:
    from torchvision.transforms import v2

    return v2.Compose(changes)


def _changes(training: TrainingSettings, size: tuple[int, int]) -> list[Any]:
    """Return the transforms of single images."""
    if training.crop_scale == 1 and not (training.rotation or training.randaugment or training.colour):
        return []
    from torchvision.transforms import InterpolationMode, v2

    changes: list[Any] = []
    if training.crop_scale < 1:
        changes.append(v2.RandomResizedCrop(size, scale=(training.crop_scale, 1.0), antialias=True))
    if training.rotation:
        changes.append(v2.RandomRotation(training.rotation, InterpolationMode.BILINEAR))
    if training.randaugment:
        changes.append(v2.RandAugment(2, training.randaugment, interpolation=InterpolationMode.BILINEAR))
    if training.colour:
        changes.append(v2.ColorJitter(*[training.colour] * 3))
    return changes


def _blends(training: TrainingSettings, classes: int) -> list[Any]:
    """Return the transforms of batches, of which each batch gets one."""
    if not (training.mixup or training.cutmix):
        return []
    from torchvision.transforms import v2

    blends: list[Any] = []
    if training.mixup:
        blends.append(v2.MixUp(alpha=training.mixup, num_classes=classes))
    if training.cutmix:
        blends.append(v2.CutMix(alpha=training.cutmix, num_classes=classes))
    return blends
