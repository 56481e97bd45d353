"""A listing of image files as a source: decoded by threads, a block at a time, with every file that can't be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from workers.bundled.infer import MOST_PIXELS, holds_16_bits
from workers.images.listing.listing import ListedSplit, Listing
from workers.images.source import (
    BLOCK,
    Block,
    ImageLayout,
    Images,
    Shape,
    Source,
    SourceImages,
    SourceSplit,
    fingerprint,
    fit_image,
    opened_image,
    read_image,
)
from workers.preprocessing import PixelType
from workers.settings import DataSettings

_GROUP = 64  # images decoded by a thread at a time; one each would cost as much in hand-overs as in decoding
LARGE = 1 << 24  # pixels; images with more are decoded one at a time, so that they don't fill the memory together
DECODING = 2  # raise it when a file would be decoded to other pixels: those of earlier versions are decoded again
_one_large = threading.Lock()


def source_of(listing: Listing, shape: Shape, settings: DataSettings) -> Source:
    """Return the files of a listing as a source; its fingerprint follows every file's name, size and mtime."""
    parts = [part for part in (listing.train, listing.test) if part is not None]
    files = [[part.details.names, part.stats, part.labels.tolist(), *_details(part)] for part in parts]
    skips = ["skip"] if settings.unreadable == "skip" else []
    label = listing.label

    def read() -> SourceImages:
        test = None if listing.test is None else _split_of(listing.root, listing.test, shape)
        train = _split_of(listing.root, listing.train, shape)
        return SourceImages(listing.class_names, train, test, listing.notes)

    content = fingerprint(DECODING, label, shape, listing.class_names, files, *skips)
    return Source(label, shape, content, read, listing.notes)


def _details(part: ListedSplit) -> list[object]:
    details = part.details
    held, weights = details.validation, details.weights
    lists = (None if held is None else held.tolist(), details.groups, None if weights is None else weights.tolist())
    return list(lists)


def _split_of(root: Path, part: ListedSplit, shape: Shape) -> SourceSplit:
    def blocks(pixel_type: PixelType) -> Iterator[Block]:
        layout = ImageLayout(shape, pixel_type)
        # Pillow releases the interpreter lock while it decodes and shrinks, so threads are enough.
        names = part.details.names
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(names), BLOCK):
                chosen = names[start : start + BLOCK]
                groups = [(at, chosen[at : at + _GROUP]) for at in range(0, len(chosen), _GROUP)]
                yield _joined(list(pool.map(lambda group: _decode(root, group[0], group[1], layout), groups)))

    return SourceSplit(
        part.labels,
        blocks,
        part.details,
        lambda place, pixel_type: read_image(root / part.details.names[place], shape, pixel_type),
    )


def _joined(blocks: Sequence[Block]) -> Block:
    sizes = [block.sizes for block in blocks if block.sizes is not None]
    unreadable = tuple(bad for block in blocks for bad in block.unreadable)
    images: Images = np.concatenate([block.images for block in blocks])
    return Block(images, unreadable, np.concatenate(sizes), any(block.has_16_bits for block in blocks))


def _decode(root: Path, first: int, names: Sequence[str], layout: ImageLayout) -> Block:
    """Decode files, of which the first is at place `first` of its block."""
    images: Images = np.empty((len(names), *layout.shape), dtype=layout.pixel_type)
    sizes = np.empty((len(names), 2), dtype=np.int64)
    unreadable, count, deep = [], 0, False
    for place, name in enumerate(names):
        try:
            sizes[count], images[count], is_deep = _read(root / name, layout)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types on broken files
            unreadable.append((first + place, _why(error)))
        else:
            count, deep = count + 1, deep or is_deep
    return Block(images[:count], tuple(unreadable), sizes[:count], deep)


def _read(file: Path, layout: ImageLayout) -> tuple[tuple[int, int], Images, bool]:
    """Return an image's size in its file, (width, height), its pixels, see `fit_image`, and whether it has 16 bits."""
    with opened_image(file, layout.shape) as image:
        size: tuple[int, int] = image.size
        pixels = size[0] * size[1]
        with _one_large if pixels > LARGE else nullcontext():
            return size, fit_image(image, layout.shape, layout.pixel_type), holds_16_bits(image)


def _why(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MOST_PIXELS / 1e6:.0f} million pixels, which would fill the memory; make it smaller"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is; make it smaller"
    text = str(error) or type(error).__name__
    return "no image that is known here" if text.startswith("cannot identify image file") else text
