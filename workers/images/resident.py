"""Training batches made where the network is trained: the split's images lie on the device, augmented there.

On a GPU the processor would otherwise cut, mirror and copy every batch while the GPU waits. The choices stay functions
of (seed, step), made by `TrainingBatches`; the batches are the same to the bit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from workers.images.batches import Batch, Normaliser, TrainingBatches

SHARE_OF_FREE_MEMORY = 0.25  # of the device: the rest is for networks


class ResidentBatches:
    """The batches of `batches`, made on `device`."""

    def __init__(self, batches: TrainingBatches, device: torch.device) -> None:
        self._batches, self._device = batches, device
        self.steps_per_epoch = batches.steps_per_epoch
        split = batches.split
        pixels = torch.from_numpy(split.pixels(np.arange(len(split)))).to(device)  # (N, C, H, W)
        self._pixels = pixels if pixels.dtype == torch.uint8 else pixels.float()  # GPUs hardly know 16-bit pixels
        self._labels = torch.from_numpy(split.labels).to(device)
        self._normalise = Normaliser(batches.info, device)

    def batch(self, step: int) -> Batch:
        """See `TrainingBatches.batch`; both tensors are on the device."""
        positions, words = self._batches.choice(step)
        chosen = torch.from_numpy(positions).to(self._device)
        images = self._pixels[chosen]
        padding = self._batches.augmentation.crop_padding
        if padding:
            down, right = torch.from_numpy((words[:2] % np.uint64(2 * padding + 1)).astype(np.int64)).to(self._device)
            black = self._batches.augmentation.black
            images = _cropped(F.pad(images, (padding,) * 4, value=black), down, right, images.shape[2:])
        if self._batches.augmentation.flip:
            mirrored = torch.from_numpy((words[2] >> np.uint64(63)).astype(bool)).to(self._device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return self._normalise(images), self._labels[chosen]


def _cropped(padded: Tensor, down: Tensor, right: Tensor, size: torch.Size) -> Tensor:
    """Return the windows of (N, C, ., .) that begin at (down, right), (N, C, *size)."""
    height, width = size
    count, channels = padded.shape[:2]
    rows = down[:, None] + torch.arange(height, device=down.device)  # (N, H)
    columns = right[:, None] + torch.arange(width, device=right.device)  # (N, W)
    image = torch.arange(count, device=down.device)[:, None, None, None]
    channel = torch.arange(channels, device=down.device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def batches_on(device: torch.device, batches: TrainingBatches) -> TrainingBatches | ResidentBatches:
    """Return the batches, resident on a CUDA device if the images take no more than a quarter of its free memory.

    Images that vary by more than crop and mirror, or have weights, are made by the processor.
    """
    if device.type != "cuda" or batches.variation or batches.weighted:
        return batches
    pixel_bytes = 1 if batches.split.images.dtype == np.uint8 else 4  # see ResidentBatches
    size = int(np.prod(batches.info.input_shape)) * len(batches.split) * pixel_bytes
    free, _ = torch.cuda.mem_get_info(device)
    return ResidentBatches(batches, device) if size <= SHARE_OF_FREE_MEMORY * free else batches
