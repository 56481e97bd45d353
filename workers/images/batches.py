"""The data of a trial: splits mapped into memory, and batches that depend on nothing but (seed, step).

- `workers.images.cache.prepare` (once, in the controller) decodes a data set; `load` (in every worker) maps it.
- A validation split is held out of the training images, by class; the test split is behind a method, `test()`, because
  it is touched once, at the end.
- Training batches have no hidden state: which images, which crops and which flips follow from (seed, step). A training
  resumed at any step sees the batches that the uninterrupted one would have seen.
- The last ragged batch of an epoch is dropped, as batch norm over a few images is mostly noise. The next epoch has
  another order, so no image is always left out. Evaluation drops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view

from workers.bundled.infer import factors
from workers.images.cache import open_prepared
from workers.images.data_info import DataInfo
from workers.images.datasets import KNOWN
from workers.images.source import Details, Images, Labels
from workers.images.splits import Positions, Stream, random_words
from workers.images.variation import Variation
from workers.preprocessing import Preprocessing
from workers.settings import DataSettings, TrainingSettings

Batch = tuple[torch.Tensor, torch.Tensor]  # float32 (N, C, H, W) normalised, int64 (N,) or float32 (N, classes)


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split: places in a (mapped) array of images that other splits may share, and their labels."""

    images: Images  # (M, C, H, W), all the images of the file
    places: Positions  # (N,), those of this split, ascending
    labels: Labels  # (N,)
    details: Details | None = None  # of each of the N

    @property
    def names(self) -> tuple[str, ...] | None:
        """The files of the images, (N,), relative to the data set's folder; None where they are no files."""
        return None if self.details is None else self.details.names

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, positions: Positions) -> Images:
        """Return a copy of the images at these positions of the split, (n, C, H, W)."""
        return np.take(self.images, self.places[positions], axis=0)


class ImageData:
    """A prepared data set as a worker sees it. `train` and `validation` are disjoint, and `test()` from both."""

    def __init__(self, info: DataInfo, train: Split, validation: Split, test: Split) -> None:
        self.info = info
        self.train = train
        self.validation = validation
        self._test = test

    def test(self) -> Split:
        """Return the test split. Call it once, for the network that was picked: choosing by it would spoil it."""
        return self._test


def load(settings: DataSettings, cache: Path) -> ImageData:
    """Map a data set that `prepare` has put into the cache; the same settings give the same splits everywhere.

    Raises:
        DataNotFound: it wasn't prepared.
    """
    info, arrays = open_prepared(settings, cache)
    places = arrays.published.places(settings)

    def of_training(positions: Positions) -> Split:
        details = arrays.train_details
        at = None if details is None else details.at(positions)
        return Split(arrays.train_images, positions, arrays.train_labels[positions], at)

    if arrays.test_images is not None and arrays.test_labels is not None:
        everything = np.arange(len(arrays.test_labels))
        test = Split(arrays.test_images, everything, arrays.test_labels, arrays.test_details)
    else:
        test = of_training(places.test if places.test is not None else np.arange(0))
    train = np.union1d(places.train, places.validation) if settings.with_validation else places.train
    return ImageData(info, of_training(train), of_training(places.validation), test)


@dataclass(frozen=True)
class Augmentation:
    """How training images vary: a random crop out of a black border of `crop_padding` pixels, a random mirror."""

    crop_padding: int
    flip: bool
    black: int = 0  # a pixel's value

    @classmethod
    def of(cls, settings: DataSettings, info: DataInfo) -> Augmentation:
        """Return the settings' augmentation; what they leave open is the data set's usual one.

        An image folder's usual is a border of an eighth of the image size, and flips.
        """
        dataset = KNOWN.get(settings.dataset)
        padding, flip = (dataset.crop_padding, dataset.flip) if dataset else (info.input_shape[1] // 8, True)
        return cls(
            crop_padding=padding if settings.crop_padding is None else settings.crop_padding,
            flip=flip if settings.flip is None else settings.flip,
            black=round(info.pixel_range[0]),
        )


def augment(images: Images, augmentation: Augmentation, words: npt.NDArray[np.uint64]) -> Images:
    """Return the images (N, C, H, W) cropped and mirrored as the random words (3, N) say; same shape."""
    count, _, height, width = images.shape
    padding = augmentation.crop_padding
    if padding:
        border = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        padded = np.pad(images, border, constant_values=augmentation.black)
        windows = sliding_window_view(padded, (height, width), axis=(2, 3))
        down, right = words[:2] % np.uint64(2 * padding + 1)  # the bias of the remainder is below 1e-17
        images = windows[np.arange(count), :, down, right]  # (N, C, H, W)
    if augmentation.flip:
        mirrored = (words[2] >> np.uint64(63)).astype(bool)
        images[mirrored] = images[mirrored][..., ::-1]
    return images


class TrainingBatches:
    """The training batches of a split: `batch(step)` is a pure function of (seed, step), for any step in any order.

    An epoch is `steps_per_epoch` = floor(images / batch_size) batches out of a permutation of its own; a split smaller
    than one batch is one batch. The permutation of the last epoch asked for is kept, so walking on is cheap. With
    balanced sampling an epoch is as many images drawn anew, each class as likely as any other.

    Of `recipe` only balance and variation matter; None has neither. Where images have weights, labels are the weighted
    shares of the classes; weights are 1 on average over the split.
    """

    def __init__(
        self,
        split: Split,
        info: DataInfo,
        settings: DataSettings,
        batch_size: int,
        seed: int,
        recipe: TrainingSettings | None = None,
    ) -> None:
        if len(split) == 0 or batch_size < 1:
            raise ValueError(f"a batch needs images, but got {len(split)} images and batch_size={batch_size}")
        recipe = recipe or TrainingSettings()
        self.variation = Variation(recipe, info.input_shape[1:], info.num_classes)
        self._balanced = recipe.balance == "sampling"
        self.steps_per_epoch = max(1, len(split) // batch_size)
        self.split, self.info = split, info
        self.augmentation = Augmentation.of(settings, info)
        self._normalise = Normaliser(info)
        weights = None if split.details is None else split.details.weights
        self._weights = None if weights is None else torch.from_numpy(weights / weights.mean()).float()
        self._batch_size = batch_size
        self._seed = seed
        self._epoch, self._order = -1, np.arange(0)

    def batch(self, step: int) -> Batch:
        """Return batch `step` of the training (0 is its first): images as float32 (N, C, H, W), labels as int64 (N,).

        Where images are blended or have weights the labels are the classes' shares, float32 (N, classes), times the
        weights.

        Raises:
            ValueError: the step is negative.
        """
        positions, words = self.choice(step)
        images = torch.from_numpy(augment(self.split.pixels(positions), self.augmentation, words))
        labels = torch.from_numpy(self.split.labels[positions])
        if self._weights is not None:
            shares = torch.nn.functional.one_hot(labels, self.info.num_classes)
            labels = shares * self._weights[torch.from_numpy(positions)][:, None]
        if not self.variation:
            return self._normalise(images), labels
        change, blend = (int(word) for word in random_words(self._seed, Stream.VARIATION, step, 2))
        return self.variation.blended(self._normalise(self._changed(images, change)), labels, blend)

    def _changed(self, images: torch.Tensor, word: int) -> torch.Tensor:
        """Return the images with their variation; torchvision knows 16-bit pixels as numbers from 0 to 1 alone."""
        if images.dtype == torch.uint8:
            return self.variation.changed(images, word)
        low, high = self.info.pixel_range
        unit = ((images.float() - low) / (high - low)).clamp_(0, 1)
        return self.variation.changed(unit, word) * (high - low) + low

    @property
    def weighted(self) -> bool:
        """Whether images have weights, so that the shares of a label needn't add up to 1."""
        return self._weights is not None

    def choice(self, step: int) -> tuple[Positions, npt.NDArray[np.uint64]]:
        """Return the places in the split of batch `step`'s images, (N,), and the words that say how they vary, (3, N).

        Raises:
            ValueError: the step is negative.
        """
        if step < 0:
            raise ValueError(f"steps count from 0, but got step={step}")
        epoch, index = divmod(step, self.steps_per_epoch)
        positions = self._order_of(epoch)[index * self._batch_size : (index + 1) * self._batch_size]
        return positions, random_words(self._seed, Stream.AUGMENTATION, step, (3, len(positions)))

    def _order_of(self, epoch: int) -> Positions:
        if epoch != self._epoch:
            words = random_words(self._seed, Stream.EPOCH_ORDER, epoch, (2, len(self.split)))
            drawn = _balanced_draw(self.split.labels, words) if self._balanced else np.argsort(words[0], kind="stable")
            self._epoch, self._order = epoch, drawn
        return self._order


def _balanced_draw(labels: Labels, words: npt.NDArray[np.uint64]) -> Positions:
    """Return as many positions as there are labels, drawn by the words (2, N): a class, then one of its images."""
    by_class, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    present = np.flatnonzero(counts)
    chosen = present[(words[0] % np.uint64(len(present))).astype(np.int64)]
    within = (words[1] % counts[chosen].astype(np.uint64)).astype(np.int64)
    drawn: Positions = by_class[(np.cumsum(counts) - counts)[chosen] + within]
    return drawn


def evaluation_batches(split: Split, info: DataInfo, batch_size: int) -> Iterator[Batch]:
    """Yield the whole split in order, not augmented: images as float32 (N, C, H, W), labels as int64 (N,)."""
    normalise = Normaliser(info)
    for start in range(0, len(split), batch_size):
        positions = np.arange(start, min(start + batch_size, len(split)))
        yield normalise(torch.from_numpy(split.pixels(positions))), torch.from_numpy(split.labels[positions])


class Normaliser:
    """Pixels (N, C, H, W) to float32 with the training split's mean 0 and deviation 1 in every channel."""

    def __init__(self, info: DataInfo, device: torch.device | None = None) -> None:
        preprocessing = Preprocessing.of(info.input_shape, info.to_dict())
        scale, shift = factors(preprocessing.table())
        self._scale, self._shift = torch.from_numpy(scale).to(device), torch.from_numpy(shift).to(device)  # (C, 1, 1)
        self._limits = preprocessing.limits

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images as float32 on their device."""
        pixels = images.float()
        if self._limits is not None:
            pixels = pixels.clamp(*self._limits)
        return pixels.mul_(self._scale).add_(self._shift)
