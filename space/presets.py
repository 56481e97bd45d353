"""The published networks, with their published error and cost beside them, and ready-made search spaces.

Source: CondenseNet (CVPR 2018), tables 1-4 and the supplement. The CIFAR rows there count the full classifier, the
ImageNet rows the half one (`classifier_keep=0.5`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from space.config import CondenseNetConfig


@dataclass(frozen=True)
class PublishedNetwork:
    """One row of the paper: the architecture and what was printed for it (error in %, top-1 unless said)."""

    name: str
    config: CondenseNetConfig
    flops: str  # as printed, the paper's convention
    params: str  # as printed
    top1_error_pct: float | None  # CIFAR-10 or ImageNet
    cifar100_error_pct: float | None = None
    top5_error_pct: float | None = None


def _cifar(layers: int, flops: str, params: str, error: float, error_100: float | None = None) -> PublishedNetwork:
    growth = (12, 24, 48) if layers == 30 else (8, 16, 32)
    config = CondenseNetConfig(stages=(layers,) * 3, growth=growth)
    return PublishedNetwork(f"condensenet-{6 * layers + 2}", config, flops, params, error, error_100)


def _imagenet(groups: int, flops: str, params: str, top1: float, top5: float) -> PublishedNetwork:
    config = CondenseNetConfig(
        stages=(4, 6, 8, 10, 8),
        growth=(8, 16, 32, 64, 128),
        groups=groups,
        condense_factor=groups,
        num_classes=1000,
        input_shape=(3, 224, 224),
        classifier_keep=0.5,
    )
    return PublishedNetwork(f"imagenet-74-g{groups}", config, flops, params, top1, top5_error_pct=top5)


PUBLISHED: dict[str, PublishedNetwork] = {
    network.name: network
    for network in (
        _cifar(8, "28.6M", "0.22M", 6.22),
        _cifar(12, "51.9M", "0.41M", 5.28),
        _cifar(14, "65.8M", "0.52M", 5.06, 23.64),
        _cifar(16, "81.3M", "0.65M", 4.83),
        _cifar(18, "98.2M", "0.79M", 4.63),
        _cifar(20, "116.7M", "0.95M", 4.48),
        _cifar(30, "513M", "4.2M", 3.76, 18.47),
        _imagenet(4, "529M", "4.8M", 26.2, 8.3),
        _imagenet(8, "274M", "2.9M", 29.0, 10.0),
    )
}


# Search spaces as plain settings (the same keys as a study file's [space]); see SearchSpace.
SPACE_PRESETS: dict[str, dict[str, Any]] = {
    "digits": {
        "num_classes": 10,
        "input_shape": [1, 8, 8],
        "groups": [1, 2, 4],
        "condense_factor": [2, 4],
        "bottleneck": [1, 2, 4],
        "num_stages": [2, 3],
        "layers": {"low": 1, "high": 4},
        "growth": [4, 8, 12, 16],
    },
    "cifar": {
        "num_classes": 10,
        "input_shape": [3, 32, 32],
        "groups": [1, 2, 4, 8],
        "condense_factor": [1, 2, 4, 8],
        "bottleneck": [2, 4],
        "groups_3x3": ["same", 1, 4],
        "num_stages": [3],
        "layers": {"low": 4, "high": 20, "step": 2},
        "growth_rule": "doubling",
        "growth": [4, 8, 12, 16],
    },
    "imagenet-mobile": {
        "num_classes": 1000,
        "input_shape": [3, 224, 224],
        "groups": [4, 8],
        "condense_factor": [4, 8],
        "bottleneck": [2, 4],
        "groups_3x3": ["same"],
        "num_stages": [5],
        "layers": {"low": 2, "high": 12, "step": 2},
        "growth_rule": "doubling",
        "growth": [8, 16],
        "classifier_keep": [0.5, 1.0],
    },
}
