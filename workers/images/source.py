"""What every data set shares: arrays of one shape, sources that yield them, and how an image is made to fit.

Images are shrunk with Pillow's bilinear filter, which is antialiased: the shorter side becomes the image size, the rest
of the longer side is cut off evenly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import PREFIXES, TiffImageFile

from workers.settings import DataSettings

Images: TypeAlias = npt.NDArray[np.uint8]  # (N, C, H, W)
Labels: TypeAlias = npt.NDArray[np.int64]  # (N,)
Shape: TypeAlias = tuple[int, int, int]  # (C, H, W)

# The decoders of Pillow that are used, whatever a file is called. Others hand the file to a program (EPS, of which a
# file may well be called photo.png) or are of formats that are not documented.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Of TIFF 6.0: sizes, samples, compression, strips, orientation, predictor, palette, tiles, extra samples, JPEG, YCbCr.
TIFF_TAGS = {*range(256, 260), 262, 266, 273, 274, *range(277, 280), 284, 317, 320, *range(322, 326), 338, 339, 347}
TIFF_TAGS |= {*range(529, 533)}
TURNED = {  # by the orientation that EXIF says a photo has
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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


class _TiffPixels(TiffImageFile):
    """A TIFF of which only the tags that pixels depend on are looked at: Pillow trips over others that are damaged."""

    format = "TIFF"

    def _setup(self) -> None:
        for tag in self.tag_v2.keys() - TIFF_TAGS:
            del self.tag_v2[tag]
        if not isinstance(self.info.get("xmp"), bytes | str):
            self.info.pop("xmp", None)
        super()._setup()


def read_image(file: Path, shape: Shape) -> Images:
    """Return an image file's pixels as (C, H, W), see `fit_image`; only the documented decoders are tried.

    Raises what Pillow's decoders raise: a dozen unrelated types.
    """
    with file.open("rb") as opened:
        is_tiff = opened.read(4) in PREFIXES
        opened.seek(0)
        with _TiffPixels(opened) if is_tiff else Image.open(opened, formats=FORMATS) as image:
            return fit_image(image, shape)


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says. Nothing else of EXIF is read: any of it may be damaged."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises a dozen unrelated types here too; a viewer shows such a photo as it lies
        return image
    method = TURNED.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def fit_image(image: Image.Image, shape: Shape) -> Images:
    """Return a Pillow image as (C, H, W): turned upright by its EXIF tag, converted, shrunk and centre-cropped.

    Raises:
        ValueError: the pixels are 32-bit numbers, of which it is unknown what is black and what is white.
    """
    channels, height, width = shape
    holds_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    image = upright(image)
    if holds_16_bits:  # Pillow's own conversion would clip to white instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {image.mode}); convert it to 8 bits a channel")
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image)  # (H, W) or (H, W, C)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
