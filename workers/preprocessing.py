"""From an image's file to a network's input: the one description, of which decoder, texts and model files are made.

`Preprocessing.table` is `[preprocessing]` of deploy.toml, and `workers.bundled.infer` follows such a table and nothing
else: for the project, when it decodes a data set, and on a device. So training, texts and devices can't disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

PixelType = Literal["uint8", "uint16"]
LARGEST: Mapping[str, int] = {"uint8": 255, "uint16": 65_535}
WIDENED = 257  # what a pixel of 8 bits is multiplied by among those of 16

# The decoders of Pillow that are used, whatever a file is called. Others hand the file to a program (EPS, of which a
# file may well be called photo.png) or are of formats that are not documented.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# What each key of the table says, for its readers; `{…}` is filled in.
COMMENTS: Mapping[str, str] = {
    "formats": "by content, not by name; of several frames the first",
    "orientation": "the image is turned as EXIF tag 274 says; nothing else of EXIF is used, and no XMP",
    "colour_space": "as it is stored: colour profiles are not applied",
    "palette": "each pixel becomes its palette's colour",
    "alpha": "the colour below a transparent pixel counts; nothing is blended",
    "cmyk": "R = (255 - C) * (255 - K) / 255, and so on",
    "grey": "to grey: (19595 R + 38470 G + 7471 B + 32768) >> 16; to colour: R = G = B",
    "sixteen_bit": "of 16-bit greys, inverted where a TIFF's white is 0; 16-bit colour, or grey with alpha: high byte",
    "channel_order": "L is grey; OpenCV's imread has B first, then G and R",
    "crop": "the largest centred rectangle of the shape of `size`; its corners may be fractions of a pixel",
    "filter": "triangle filter as wide as the shrinking (antialiased); one pass each way, rounded between",
    "size": "height, width in pixels",
    "pixel_type": "after resizing",
    "pixel_range": "low, high of the scale; a pixel beyond is clipped",
    "scale": "per channel, in float32",
    "in_model": "the steps that the model files do themselves; 'scale' includes clipping and the conversion to float32",
    "dtype": "of the input of model.file; other files: [model_files]",
    "layout": "of x: batch, channels, height, width; what each file takes: [model_files]",
}


@dataclass(frozen=True)
class Preprocessing:
    """How a network sees an image.

    `shape` is (C, H, W); `mean` and `std` are of pixels scaled from `pixel_range` to 0..1, one for each channel (none
    while a data set is decoded, when they aren't known yet). `in_model`: whether the model files scale by themselves.
    """

    shape: tuple[int, int, int]
    pixel_type: PixelType = "uint8"
    pixel_range: tuple[float, float] = (0.0, 255.0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    in_model: bool = False

    @classmethod
    def of(cls, shape: Sequence[int], data_info: Mapping[str, Any], in_model: bool = False) -> Preprocessing:
        """Return the preprocessing of networks trained on the images of a stored `DataInfo`, perhaps an early one."""
        pixel_type: PixelType = data_info.get("pixel_type", "uint8")
        low, high = data_info.get("pixel_range", (0.0, LARGEST[pixel_type]))
        mean, std = (tuple(data_info.get(name, ())) for name in ("mean", "std"))
        return cls((shape[0], shape[1], shape[2]), pixel_type, (float(low), float(high)), mean, std, in_model)

    @property
    def limits(self) -> tuple[float, float] | None:
        """What pixels are clipped to; None where no pixel can be beyond."""
        return None if self.pixel_range == (0, LARGEST[self.pixel_type]) else self.pixel_range

    def table(self) -> dict[str, Any]:
        """Return `[preprocessing]` of deploy.toml, in the order in which the steps are done; see `COMMENTS`."""
        channels, height, width = self.shape
        return {
            "formats": list(FORMATS),
            "orientation": "exif",
            "colour_space": "as stored",
            "palette": "expanded",
            "alpha": "dropped",
            "cmyk": "without profile",
            "grey": "ITU-R 601-2",
            "sixteen_bit": "high byte" if self.pixel_type == "uint8" else "kept",
            "channel_order": "L" if channels == 1 else "RGB",
            "crop": "centre",
            "filter": "bilinear, antialiased",
            "size": [height, width],
            "pixel_type": self.pixel_type,
            "pixel_range": list(self.pixel_range),
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": "x = ((pixel - low) / (high - low) - mean) / std",
            "in_model": ["scale"] if self.in_model else [],
            "dtype": self.pixel_type if self.in_model else "float32",
            "layout": "NCHW",
        }
