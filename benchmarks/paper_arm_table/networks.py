"""The networks of the paper's ARM table and today's MobileNets: built untrained, counted, and written as ONNX.

Source of the paper's figures: CondenseNet (CVPR 2018), its table of inference times on an ARM processor, one image
of 224x224.

Notable choices:
- Weights are random, the statistics of batch norms settled on random images: with the initial ones the signal dies
  out after some layers, logits are biases alone, and comparing an export with torch would show nothing.
- macs are those of convolutions and linear layers, 1 multiply-add = 1, as fvcore counts. The paper's figures for
  CondenseNets also hold ReLU elements and pooling, so they are larger than ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

from benchmarks.paper_arm_table.mobilenet_v1 import MobileNetV1
from space.deployed import DeployedCondenseNet
from space.errors import ExportMismatch
from space.presets import PUBLISHED
from workers.baselines import networks as baselines
from workers.export.onnx import exported_network, save_onnx

IMAGE = (3, 224, 224)
TOLERANCE = 1e-4  # of the largest output, between torch and the exported file


@dataclass(frozen=True)
class PaperRow:
    """What the paper's ARM table prints for a network; `seconds` on the paper's ARM processor."""

    macs_millions: int
    top1_error_pct: float
    seconds: float


PAPER = {
    "vgg-16": PaperRow(15_300, 28.5, 354.0),
    "resnet-18": PaperRow(1_818, 30.2, 8.14),
    "mobilenet-v1": PaperRow(569, 29.4, 1.96),
    "condensenet-74-g4": PaperRow(529, 26.2, 1.89),
    "condensenet-74-g8": PaperRow(274, 29.0, 0.99),
}


@dataclass(frozen=True)
class Network:
    """A network of the table: how it is built (untrained), and how many runs of it are counted at most."""

    title: str
    build: Callable[[], nn.Module]
    most_runs: int = 1000


def _condensenet(groups: int) -> Network:
    config = PUBLISHED[f"imagenet-74-g{groups}"].config
    return Network(f"CondenseNet-74 G=C={groups}", partial(DeployedCondenseNet.random, config))


NETWORKS = {
    "condensenet-74-g8": _condensenet(8),
    "condensenet-74-g4": _condensenet(4),
    "mobilenet-v1": Network("MobileNet v1", MobileNetV1),
    "mobilenet-v2": Network("MobileNet v2", torchvision.models.mobilenet_v2),
    "mobilenet-v3-large": Network("MobileNet v3 large", torchvision.models.mobilenet_v3_large),
    "mobilenet-v3-small": Network("MobileNet v3 small", torchvision.models.mobilenet_v3_small),
    "resnet-18": Network("ResNet-18", torchvision.models.resnet18),
    "vgg-16": Network("VGG-16", torchvision.models.vgg16, most_runs=3),
}


def macs_of(network: nn.Module) -> int:
    """Count the multiply-adds of convolutions and linear layers for one image; on the meta device nothing is computed.

    torch's operator counter, because fvcore's tracer knows no meta tensors; tests hold the two together.
    """
    return baselines.macs_of(network, IMAGE)


@torch.no_grad()
def settled(build: Callable[[], nn.Module], image: tuple[int, int, int] = IMAGE) -> nn.Module:
    """Build a network, the same weights each time, in eval mode, its batch norms' statistics those of two images."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = build().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the plain average of what is seen
                module.train()
        network(torch.randn(2, *image))
    return network.eval().requires_grad_(False)


# ---- files -----------------------------------------------------------------------------------------------


def save_model(network: nn.Module, path: Path, image: tuple[int, int, int] = IMAGE) -> None:
    """Write ONNX with batch norms folded: Condensery's own writer for a CondenseNet, torch's exporter for others."""
    if isinstance(network, DeployedCondenseNet):
        save_onnx(network, path)
    else:
        baselines.save_onnx_of(network, image, path)


@torch.no_grad()
def check_model(network: nn.Module, path: Path, image: tuple[int, int, int] = IMAGE) -> float:
    """Return the largest difference between file and network, as a fraction of the largest logit.

    Raises ExportMismatch above TOLERANCE, or when logits hardly depend on the image, so that nothing is compared.
    """
    images = torch.randn(2, 1, *image, generator=torch.Generator().manual_seed(0))
    expected = np.stack([network(image).numpy() for image in images])
    run = exported_network(path)
    actual = np.stack([run(image.numpy()) for image in images])
    largest = float(np.abs(expected).max())
    difference = float(np.abs(actual - expected).max()) / largest
    if not difference <= TOLERANCE:
        raise ExportMismatch(
            f"{path.name} must equal its network to {TOLERANCE:g} of the largest output, but is off by "
            f"{difference:.2e}; look at what the exporter folded."
        )
    if not float(np.abs(expected[0] - expected[1]).max()) > 100 * TOLERANCE * largest:
        raise ExportMismatch(f"the logits of {path.name} must depend on the image, but don't; settle its statistics.")
    return difference
