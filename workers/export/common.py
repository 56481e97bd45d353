"""What the exports share: folded batch norms, one zip as a model file, and the check against torch."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, DeployedLayer
from space.errors import ExportMismatch
from workers.file_names import INPUT, OUTPUT

TOLERANCE = 1e-5  # of the largest output
HALF_TOLERANCE = 0.01  # the same where weights have 16 bits, and on some processors features too
HALF_LARGEST = 65504.0  # of the numbers of 16 bits

Array = np.ndarray[Any, np.dtype[Any]]


def doubles(values: Tensor) -> Array:
    """Return a parameter as float64, so that folding rounds once, at the end."""
    return values.detach().cpu().double().numpy()


def halves(values: Array) -> Array:
    """Return weights as float16.

    Raises:
        ExportMismatch: one is too large for 16 bits.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= HALF_LARGEST:
        raise ExportMismatch(f"weights in fp16 must be at most {HALF_LARGEST:g}, but one is {largest:g}; use fp32.")
    return values.astype("<f2")


def affine(norm: nn.BatchNorm2d) -> tuple[Array, Array]:
    """Return (scale, shift), each (channels,) float64: in eval mode the norm is scale * x + shift."""
    scale = doubles(norm.weight) / np.sqrt(doubles(cast(Tensor, norm.running_var)) + norm.eps)
    return scale, doubles(norm.bias) - doubles(cast(Tensor, norm.running_mean)) * scale


def folded_1x1(layer: DeployedLayer) -> tuple[Array, Array]:
    """Return the 1x1's (weight, bias) with the batch norm before the 3x3 folded in; outputs come group by group."""
    conv_1x1 = layer.conv_1x1
    scale, shift = affine(layer.norm)
    order = conv_1x1.permutation.cpu().numpy()  # training order from group order
    weight, bias = np.empty_like(doubles(conv_1x1.conv.weight)), np.empty_like(shift)
    weight[order] = doubles(conv_1x1.conv.weight)[order] * scale[:, None, None, None]
    bias[order] = shift
    return weight, bias


def model_facts(
    config: CondenseNetConfig, layers: list[str], rules: dict[str, Any] | None = None, precision: str = "fp32"
) -> bytes:
    """Return the content of model.json: the names of input and output, the input's shape, and extra layers.

    Args:
        config: the architecture; kept in the file, so that a model says what it is.
        layers: names of layers that the runtime doesn't have itself and the program that runs the model must register.
        rules: how an image becomes the input, where the model itself does the last step; see `workers.preprocessing`.
        precision: of weights and activations; in the file only where it isn't fp32.
    """
    facts = {
        "input": INPUT,
        "output": OUTPUT,
        "shape": list(config.input_shape),
        "layers": layers,
        "config": config.to_dict(),
        **({} if rules is None else {"preprocessing": rules}),
        **({} if precision == "fp32" else {"precision": precision}),
    }
    return json.dumps(facts, indent=1, sort_keys=True).encode() + b"\n"


def stored_zip(files: dict[str, bytes]) -> bytes:
    """Return an uncompressed zip of `files`; equal files in equal order give equal bytes on every system."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix; else it is the system that writes
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


@torch.no_grad()
def difference(network: DeployedCondenseNet, run: Callable[[Array], Array], images: int = 4) -> float:
    """Return the largest difference of a logit between `run` and torch, as a fraction of the largest logit.

    Args:
        network: the network whose logits `run` should give; moved to the CPU.
        run: from one image (C, H, W) float32 to logits (classes,).
        images: how many random images are compared.
    """
    return batch_difference(network, lambda x: np.stack([run(image) for image in x]), images)


@torch.no_grad()
def batch_difference(network: DeployedCondenseNet, run: Callable[[Array], Array], images: int = 4) -> float:
    """Return `difference` for a `run` from images (N, C, H, W) to logits (N, classes)."""
    x = torch.randn(images, *network.config.input_shape, generator=torch.Generator().manual_seed(0))
    expected = network.cpu()(x).numpy()
    actual = run(x.numpy())
    return relative_difference(actual, expected)


def relative_difference(actual: Array, expected: Array) -> float:
    """Return the largest difference of a logit, as a fraction of the largest expected; ValueError at another shape."""
    if actual.shape != expected.shape:
        raise ValueError(f"the logits must have shape {expected.shape}, but have {actual.shape}")
    return float(np.abs(actual - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def checked(
    path: Path, load: Callable[[bytes], Callable[[Array], Array]], network: DeployedCondenseNet, images: int = 4
) -> float:
    """Return the `difference` of a model file that `load` opens, image by image; raises as `within_tolerance` does."""
    return within_tolerance(path, lambda: difference(network, load(path.read_bytes()), images))


RULE = f"the exported network must equal the trained one to {TOLERANCE:g} of its largest output"


def within_tolerance(path: Path, compare: Callable[[], float], tolerance: float = TOLERANCE, rule: str = RULE) -> float:
    """Return the difference that `compare` finds by running an exported file; `rule` says what the tolerance is of.

    Raises:
        ExportMismatch: it can't be loaded and run, or the difference is above the tolerance.
    """
    try:
        off = compare()
    except MemoryError:
        raise
    except Exception as error:  # a runtime's errors have no class in common
        raise ExportMismatch(f"{path} can't be checked and run: {' '.join(str(error).split())[:300]}") from error
    if not off <= tolerance:
        raise ExportMismatch(f"{rule}, but {path} is off by {off:.2e}.")
    return off
