"""Quantized networks for the tests of what is written from them."""

from __future__ import annotations

import torch
from torch import Tensor

from space.deployed import DeployedCondenseNet
from workers.export.native_int8 import SCHEME
from workers.quantization.calibration import calibrate
from workers.quantization.network import QuantizedNetwork


def random_images(network: DeployedCondenseNet, images: int, seed: int = 0) -> Tensor:
    """Return images (N, C, H, W) that differ in colour and contrast, so that logits do, too."""
    generator, channels = torch.Generator().manual_seed(seed), network.config.input_shape[0]
    noise = torch.randn(images, *network.config.input_shape, generator=generator)
    colour = torch.randn(images, channels, 1, 1, generator=generator)
    return colour + noise * torch.rand(images, 1, 1, 1, generator=generator)


def quantized(network: DeployedCondenseNet, images: int = 8) -> QuantizedNetwork:
    """Return a network calibrated for the project's kernel, on random images."""
    return calibrate(network, random_images(network, images, seed=1), torch.arange(images) % 2, SCHEME)
