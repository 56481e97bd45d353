"""Torchvision's networks at a study's image size and classes, their exact cost, and their ONNX files.

Notable choices:
- A network is built as torchvision has it; only its first convolution takes the images' channels and its last layer
  gives the classes. It was made for 224x224, so at small sizes it shrinks images early: that is part of the comparison.
- "EfficientNet-lite0-sized" is EfficientNet-B0 without squeeze-and-excitation and with ReLU6, as the lite form is.
- macs are those of convolutions and linear layers, 1 multiply-add = 1, as everywhere here.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.ops.misc import SqueezeExcitation

from space.errors import InvalidConfig
from workers.export.onnx import OPSET
from workers.file_names import INPUT, OUTPUT
from workers.images.source import Shape


@dataclass(frozen=True)
class BaselineNetwork:
    """A network to compare with, and how it is built for a number of classes."""

    title: str
    build: Callable[[int], nn.Module]


def _lite(classes: int) -> nn.Module:
    network: nn.Module = models.efficientnet_b0(num_classes=classes)
    _exchange(network)
    return network


def _exchange(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, SqueezeExcitation):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.SiLU):
            setattr(module, name, nn.ReLU6(inplace=True))
        else:
            _exchange(child)


BASELINES = {
    "mobilenet-v2": BaselineNetwork("MobileNet v2", lambda classes: models.mobilenet_v2(num_classes=classes)),
    "mobilenet-v3-small": BaselineNetwork(
        "MobileNet v3 small", lambda classes: models.mobilenet_v3_small(num_classes=classes)
    ),
    "mobilenet-v3-large": BaselineNetwork(
        "MobileNet v3 large", lambda classes: models.mobilenet_v3_large(num_classes=classes)
    ),
    "shufflenet-v2": BaselineNetwork(
        "ShuffleNet v2 1.0", lambda classes: models.shufflenet_v2_x1_0(num_classes=classes)
    ),
    "efficientnet-lite0": BaselineNetwork("EfficientNet-lite0-sized", _lite),
    "resnet-18": BaselineNetwork("ResNet-18", lambda classes: models.resnet18(num_classes=classes)),
    "densenet-121": BaselineNetwork("DenseNet-121", lambda classes: models.densenet121(num_classes=classes)),
    "vgg-16": BaselineNetwork("VGG-16", lambda classes: models.vgg16(num_classes=classes)),
}


def build(name: str, shape: Shape, classes: int, seed: int = 0) -> nn.Module:
    """Return a network for images of (C, H, W), untrained, the same weights for a seed.

    Raises:
        InvalidConfig: it can't take images so small.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision says that weights will be drawn otherwise one day
        with torch.device("meta"):  # nothing is computed there
            _check_size(_built(name, shape[0], classes), name, shape)
        torch.manual_seed(seed)
        return _built(name, shape[0], classes)


def _built(name: str, channels: int, classes: int) -> nn.Module:
    network = BASELINES[name].build(classes)
    _take_channels(network, channels)
    return network.eval()


def _check_size(network: nn.Module, name: str, shape: Shape) -> None:
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InvalidConfig(f"{BASELINES[name].title} can't take images of {shape[1]}x{shape[2]} ({reason}).") from None


def _take_channels(network: nn.Module, channels: int) -> None:
    """Have the first convolution take so many channels."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                if child.in_channels != channels:
                    first = nn.Conv2d(
                        channels,
                        child.out_channels,
                        child.kernel_size,  # type: ignore[arg-type]
                        child.stride,  # type: ignore[arg-type]
                        child.padding,  # type: ignore[arg-type]
                        bias=child.bias is not None,
                    )
                    setattr(module, name, first)
                return


def macs_of(network: nn.Module, shape: Shape) -> int:
    """Return the multiply-adds of convolutions and linear layers for one image."""
    image = torch.zeros(1, *shape, device=next(network.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(image)
    return int(counter.get_total_flops()) // 2


def params_of(network: nn.Module) -> int:
    """Return how many weights a network has."""
    return sum(parameter.numel() for parameter in network.parameters())


def save_onnx_of(network: nn.Module, shape: Shape, path: Path) -> None:
    """Write a network as ONNX with batch norms folded, by torch's exporter."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch deprecates this exporter; the other one needs onnxscript
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, *shape),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
