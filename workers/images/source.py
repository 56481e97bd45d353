"""What every data set shares: arrays of one shape, sources that yield them, and how an image is made to fit.

How a file becomes pixels is `workers.preprocessing`'s to say; `workers.bundled.infer` does it, here as on a device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from workers.bundled import infer
from workers.preprocessing import PixelType, Preprocessing
from workers.settings import DataSettings

Images: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]  # (N, C, H, W), uint8 or uint16
Labels: TypeAlias = npt.NDArray[np.int64]  # (N,)
Shape: TypeAlias = tuple[int, int, int]  # (C, H, W)

BLOCK = 1024  # images handed on at once: 3 MB at 3 x 32 x 32


class ImageLayout(NamedTuple):
    """What images are made to be, one like the other."""

    shape: Shape
    pixel_type: PixelType


class Block(NamedTuple):
    """Some images of a split, in its order; those that can't be read are left out of `images` and `sizes`."""

    images: Images
    unreadable: tuple[tuple[int, str], ...] = ()  # place in the block, and why it can't be read
    sizes: npt.NDArray[np.int64] | None = None  # (n, 2), width and height in the file, in pixels
    has_16_bits: bool = False  # whether one of them has greys of 16 bits in its file

    @property
    def looked_at(self) -> int:
        """How many images of the split it stands for, those that can't be read included."""
        return len(self.images) + len(self.unreadable)


@dataclass(frozen=True)
class Details:
    """What is known of each image of a split besides its label, in the split's order; None: nothing."""

    names: tuple[str, ...]  # of files, relative to the data set's folder
    validation: npt.NDArray[np.bool_] | None = None  # (N,), whether it was put into the validation split by hand
    groups: tuple[str, ...] | None = None  # images of one group must be in the same split
    weights: npt.NDArray[np.float64] | None = None  # (N,), what its loss in training is multiplied by

    def at(self, places: npt.NDArray[np.int64]) -> Details:
        """Return the details of the images at these places."""
        return Details(
            tuple(self.names[place] for place in places),
            None if self.validation is None else self.validation[places],
            None if self.groups is None else tuple(self.groups[place] for place in places),
            None if self.weights is None else self.weights[places],
        )


def details_to_dict(details: Details) -> dict[str, Any]:
    """Return plain values that JSON can hold."""
    held, weights = details.validation, details.weights
    return {
        "names": list(details.names),
        "validation": None if held is None else np.flatnonzero(held).tolist(),
        "groups": None if details.groups is None else list(details.groups),
        "weights": None if weights is None else weights.tolist(),
    }


def details_from_dict(values: dict[str, Any]) -> Details:
    """Return the details whose `details_to_dict` gave these values."""
    held = None
    if values["validation"] is not None:
        held = np.zeros(len(values["names"]), dtype=np.bool_)
        held[values["validation"]] = True
    groups, weights = values["groups"], values["weights"]
    return Details(
        tuple(values["names"]),
        held,
        None if groups is None else tuple(groups),
        None if weights is None else np.array(weights, dtype=np.float64),
    )


@dataclass(frozen=True)
class SourceSplit:
    """One split as its maker published it: labels (N,), and a function that yields the images in that order.

    The function takes the type of the pixels that it is to yield, where it can yield more than one.
    """

    labels: Labels
    blocks: Callable[[PixelType], Iterator[Block]]
    details: Details | None = None
    # Of a place in it, and a type of pixels: the image, (C, H, W); raises anything.
    image_at: Callable[[int, PixelType], Images] | None = None


@dataclass(frozen=True)
class SourceImages:
    """An opened data set; `test` is None where its maker published no test split."""

    class_names: tuple[str, ...]
    train: SourceSplit
    test: SourceSplit | None
    notes: tuple[str, ...] = ()  # what a person should know of how it was found, and what was left out of it


@dataclass(frozen=True)
class Source:
    """A data set that is located, not yet read. `fingerprint` is a SHA-256 that follows the images' content."""

    label: str
    shape: Shape
    fingerprint: str
    open: Callable[[], SourceImages]
    notes: tuple[str, ...] = ()  # those of the images once opened, which the fingerprint doesn't follow


def shape_of(settings: DataSettings, own: Shape) -> Shape:
    """Return the (C, H, W) that the settings ask of a data set whose own shape is `own`."""
    size = own[1] if settings.image_size is None else settings.image_size
    return (settings.channels or own[0], size, size)


def fingerprint(*content: object) -> str:
    """Return the SHA-256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def read_image(file: Path, shape: Shape, pixel_type: PixelType = "uint8") -> Images:
    """Return an image file's pixels as (C, H, W), see `fit_image`; only the documented decoders are tried.

    Raises what Pillow's decoders raise: a dozen unrelated types.
    """
    with opened_image(file, shape) as image:
        return fit_image(image, shape, pixel_type)


@contextmanager
def opened_image(file: Path, shape: Shape) -> Iterator[Image.Image]:
    """Yield an image file of which only the beginning is read yet. Raises as `read_image` does."""
    with file.open("rb") as opened, infer.opened_image(opened, decoding_rules(shape)) as image:
        yield image


@cache
def decoding_rules(shape: Shape, pixel_type: PixelType = "uint8") -> dict[str, Any]:
    """Return the rules by which an image's file becomes pixels: those that a bundle states."""
    return Preprocessing(shape, pixel_type).table()


def fit_image(image: Image.Image, shape: Shape, pixel_type: PixelType = "uint8") -> Images:
    """Return a Pillow image as (C, H, W): turned upright by its EXIF tag, converted, shrunk and centre-cropped.

    Raises:
        ValueError: the pixels are 32-bit or signed numbers, of which it is unknown what is black and what is white.
    """
    pixels: Images = infer.pixels_of(image, decoding_rules(shape, pixel_type))
    return pixels
