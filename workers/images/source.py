"""What every data set shares: arrays of one shape, sources that yield them, and how an image is made to fit.

How a file becomes pixels is `workers.preprocessing`'s to say; `workers.bundled.infer` does it, here as on a device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from workers.bundled import infer
from workers.preprocessing import Preprocessing
from workers.settings import DataSettings

Images: TypeAlias = npt.NDArray[np.uint8]  # (N, C, H, W)
Labels: TypeAlias = npt.NDArray[np.int64]  # (N,)
Shape: TypeAlias = tuple[int, int, int]  # (C, H, W)

BLOCK = 1024  # images handed on at once: 3 MB at 3 x 32 x 32


@dataclass(frozen=True)
class SourceSplit:
    """One split as its maker published it: labels (N,), and a function that yields the images in that order."""

    labels: Labels
    blocks: Callable[[], Iterator[Images]]


@dataclass(frozen=True)
class SourceImages:
    """An opened data set; `test` is None where its maker published no test split."""

    class_names: tuple[str, ...]
    train: SourceSplit
    test: SourceSplit | None


@dataclass(frozen=True)
class Source:
    """A data set that is located, not yet read. `fingerprint` is a SHA-256 that follows the images' content."""

    label: str
    shape: Shape
    fingerprint: str
    open: Callable[[], SourceImages]


def shape_of(settings: DataSettings, own: Shape) -> Shape:
    """Return the (C, H, W) that the settings ask of a data set whose own shape is `own`."""
    size = own[1] if settings.image_size is None else settings.image_size
    return (settings.channels or own[0], size, size)


def fingerprint(*content: object) -> str:
    """Return the SHA-256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def read_image(file: Path, shape: Shape) -> Images:
    """Return an image file's pixels as (C, H, W), see `fit_image`; only the documented decoders are tried.

    Raises what Pillow's decoders raise: a dozen unrelated types.
    """
    pixels: Images = infer.read_pixels(file, decoding_rules(shape))
    return pixels


@cache
def decoding_rules(shape: Shape) -> dict[str, Any]:
    """Return the rules by which an image's file becomes pixels: those that a bundle states."""
    return Preprocessing(shape).table()


def fit_image(image: Image.Image, shape: Shape) -> Images:
    """Return a Pillow image as (C, H, W): turned upright by its EXIF tag, converted, shrunk and centre-cropped.

    Raises:
        ValueError: the pixels are 32-bit numbers, of which it is unknown what is black and what is white.
    """
    pixels: Images = infer.pixels_of(image, decoding_rules(shape))
    return pixels
