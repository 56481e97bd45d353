"""What a model file does itself where preprocessing is baked in: whole pixels become the network's float32 input.

It is the step `scale` of `workers.preprocessing`: pixels beyond the range are clipped, then multiplied and added to,
channel by channel, with the very float32 numbers that training used. Decoding, cropping and resizing remain to be done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from space.deployed import DeployedCondenseNet
from workers.bundled.infer import factors, scaled
from workers.export.common import Array
from workers.preprocessing import LARGEST, PixelType, Preprocessing


@dataclass(frozen=True)
class PixelInput:
    """A model's input of pixels, scaled as `preprocessing` says, whose `in_model` is set."""

    preprocessing: Preprocessing

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> PixelInput:
        """Return the input of a model that does `preprocessing`'s scaling."""
        return cls(replace(preprocessing, in_model=True))

    @property
    def rules(self) -> dict[str, Any]:
        """`[preprocessing]` of a bundle with such a model."""
        return self.preprocessing.table()

    @property
    def pixel_type(self) -> PixelType:
        """The type of the input's numbers."""
        return self.preprocessing.pixel_type

    @property
    def limits(self) -> tuple[float, float] | None:
        """What pixels are clipped to; None where no pixel can be beyond."""
        return self.preprocessing.limits

    @property
    def factors(self) -> tuple[Array, Array]:
        """Scale and shift, each (C,) float32."""
        scale, shift = factors(self.rules)
        return scale.ravel(), shift.ravel()

    def random(self, images: int) -> Array:
        """Return random images of the input's type, (N, C, H, W), the same every time."""
        shape = (images, len(self.rules["channel_order"]), *self.rules["size"])
        return np.random.default_rng(0).integers(0, LARGEST[self.pixel_type], shape, self.pixel_type, endpoint=True)

    def scaled(self, pixels: Array) -> Array:
        """Return pixels (N, C, H, W) as the float32 that the network sees."""
        return scaled(pixels, self.rules)

    @torch.no_grad()
    def logits(self, network: DeployedCondenseNet, pixels: Array) -> Array:
        """Return the trained network's logits (N, classes) for pixels (N, C, H, W), scaled outside of it."""
        logits: Array = network.cpu()(torch.from_numpy(self.scaled(pixels))).numpy()
        return logits
