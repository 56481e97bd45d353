"""What reading a data set's images brought to light: which can't be read, and how large they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from space.errors import UnreadableImage
from workers.images.data_info import Published
from workers.images.datasets import find_source
from workers.images.near_duplicates import Pictures, digests_of, hashes_of, notes_on_splits
from workers.images.pixel_values import range_of
from workers.images.progress import progress
from workers.images.source import Block, Details, Labels, SourceSplit
from workers.preprocessing import PixelType
from workers.settings import DataSettings
from workers.wording import counted, listed, one_line

NAMED = 5  # files in a message
KeptBlocks = Callable[[Iterator[Block]], Iterator[Block]]  # the blocks of a split as they are handed on


class Unreadable(NamedTuple):
    """A file that can't be read, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        """Return both as one line."""
        return f"{one_line(self.name)} ({one_line(self.reason, 160)})"


class DecodingRecord:
    """What was read of `total` images so far."""

    def __init__(self, total: int) -> None:
        self.total, self.unreadable = total, list[Unreadable]()
        self.noted = list[str]()
        self._smallest, self._largest = (0, 0), (0, 0)  # by area, (width, height); (0, 0): no size is known

    def add(self, block: Block, at: int, details: Details | None) -> npt.NDArray[np.int64]:
        """Take in a block that begins at place `at` of its split; return the places of the images that were read."""
        bad = np.array([place for place, _ in block.unreadable], dtype=np.int64)
        for place, reason in block.unreadable:
            name = f"image {at + place}" if details is None else details.names[at + place]
            self.unreadable.append(Unreadable(name, reason))
        if block.sizes is not None and len(block.sizes):
            areas = block.sizes.prod(axis=1)
            for size in (block.sizes[areas.argmin()], block.sizes[areas.argmax()]):
                self._widen((int(size[0]), int(size[1])))
        return at + np.setdiff1d(np.arange(block.looked_at), bad)

    def _widen(self, size: tuple[int, int]) -> None:
        def area(of: tuple[int, int]) -> int:
            return of[0] * of[1]

        if self._smallest == (0, 0) or area(size) < area(self._smallest):
            self._smallest = size
        if area(size) > area(self._largest):
            self._largest = size

    def check(self, label: str, settings: DataSettings) -> None:
        """Raise UnreadableImage as `check_unreadable` does."""
        check_unreadable(label, self.unreadable, self.total, settings)

    def note(self, text: str) -> None:
        """Add to what is to be said."""
        self.noted.append(text)

    def notes(self) -> list[str]:
        """Return what is to be said of images that were read in the end."""
        said = [*self.noted, *self.size_notes()]
        if self.unreadable:
            names = [bad.name for bad in self.unreadable]
            files = counted(len(names), "file that can't be read", "files that can't be read")
            said.append(f"left out: {files} ({listed(names)})")
        return said

    def size_notes(self) -> list[str]:
        """Return how large the images are, if that is known."""
        said = []
        if self._largest != (0, 0):
            (width, height), (most_width, most_height) = self._smallest, self._largest
            same = self._smallest == self._largest
            largest = "" if same else f" to {most_width}x{most_height}"
            said.append(f"the images are {width}x{height}{largest} pixels in their files")
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return what `check_unreadable` needs and what is to be said, as plain values that JSON can hold."""
        return {"total": self.total, "unreadable": [list(bad) for bad in self.unreadable], "said": self.notes()}


def check_unreadable(label: str, unreadable: Sequence[Unreadable], total: int, settings: DataSettings) -> None:
    """Raise UnreadableImage if files of a data set can't be read, and the settings don't say that so many are skipped.

    Args:
        label: of the data set.
        unreadable: the files.
        total: how many there are, with those that can be read.
        settings: of the study.
    """
    count = len(unreadable)
    skips = settings.unreadable == "skip"
    if not count or (skips and count <= settings.unreadable_most * total):
        return
    files = f"{counted(count, 'file')} of {total:,} of {one_line(label)} can't be read as an image"
    text = f"{files}: {'; '.join(map(str, unreadable[:NAMED]))}"
    if count > NAMED:
        text += f"; and {count - NAMED:,} more, which `condensery check --images` lists"
    if skips:
        limit = f"{settings.unreadable_most:.0%}"
        raise UnreadableImage(f"{text}. At most {limit} may be skipped (data.unreadable_most); repair or remove them.")
    raise UnreadableImage(f'{text}. Repair or remove them, or set data.unreadable = "skip".')


class _Has16Bits(Exception):
    """An image has 16-bit greys, which 8-bit pixels would cut off."""


def at_their_depth(
    bits: Literal[8, 16] | None,
    advance: Callable[[int], None],
    read: Callable[[PixelType, KeptBlocks, Callable[[int], None]], DecodingRecord],
) -> DecodingRecord:
    """Read images with the bits that a pixel is to have; return what was read.

    Args:
        bits: of a pixel; None = 16 where any image has 16-bit greys.
        advance: is told how many images more are decoded; less than 0 where these will be decoded again.
        read: reads all splits with pixels of a type, whose blocks it takes through the function that it is given, and
            tells another how many images more are decoded.
    """
    if bits is not None:
        return read("uint16" if bits == 16 else "uint8", iter, advance)
    decoded = 0

    def counted(images: int) -> None:
        nonlocal decoded
        decoded += images
        advance(images)

    try:
        return read("uint8", _refusing_16_bits, counted)
    except _Has16Bits:  # only decoding tells; what was decoded before is decoded again
        advance(-decoded)
        record = read("uint16", iter, advance)
        record.note("pixels are kept with 16 bits, as some images have them; data.bits = 8 takes their upper 8")
        return record


def _refusing_16_bits(blocks: Iterator[Block]) -> Iterator[Block]:
    for block in blocks:
        if block.has_16_bits:
            raise _Has16Bits
        yield block


def read_through(settings: DataSettings) -> DecodingRecord:
    """Decode every image of the data set, writing nothing, and return what that brought to light.

    Nearly the same images in two splits are among its notes, as of a data set that is prepared.

    Raises:
        UnknownDataset, DataNotFound: see `workers.images.datasets`. A missing set is not downloaded.
    """
    source = find_source(settings.model_copy(update={"download": False}))
    content = source.open()
    splits = [split for split in (content.train, content.test) if split is not None]
    total = sum(len(split.labels) for split in splits)

    def read(pixel_type: PixelType, kept_blocks: KeptBlocks, advance: Callable[[int], None]) -> DecodingRecord:
        record = DecodingRecord(total)
        parts = [_read_split(split, pixel_type, kept_blocks, record, advance) for split in splits]
        for note in _duplicate_notes(parts, pixel_type, settings, source.label):
            record.note(note)
        return record

    with progress("Decoding", source.label, total) as advance, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        return at_their_depth(settings.bits, advance, read)


class _ReadSplit(NamedTuple):
    """What could be read of a split: labels and details of the images, and the images as pictures."""

    labels: Labels
    details: Details | None
    pictures: Pictures | None  # None: single images can't be decoded again
    extremes: npt.NDArray[np.int64]  # (M, 2), the smallest and the largest pixel of each image


def _read_split(
    split: SourceSplit,
    pixel_type: PixelType,
    kept_blocks: KeptBlocks,
    record: DecodingRecord,
    advance: Callable[[int], None],
) -> _ReadSplit:
    at, places, extremes = 0, [np.arange(0)], [np.empty((0, 2), dtype=np.int64)]
    hashes, digests = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.uint64)]
    for block in kept_blocks(split.blocks(pixel_type)):
        places.append(record.add(block, at, split.details))
        hashes.append(hashes_of(block.images))
        digests.append(digests_of(block.images))
        pixels = block.images.reshape(len(block.images), -1)
        if len(pixels):
            extremes.append(np.stack([pixels.min(axis=1), pixels.max(axis=1)], axis=1).astype(np.int64))
        at += block.looked_at
        advance(block.looked_at)
    kept, image_at = np.concatenate(places), split.image_at
    details, pictures = None if split.details is None else split.details.at(kept), None
    if image_at is not None:
        again = image_at
        pictures = Pictures(
            np.concatenate(hashes), np.concatenate(digests), lambda place: again(int(kept[place]), pixel_type)
        )
    return _ReadSplit(split.labels[kept], details, pictures, np.concatenate(extremes))


def _duplicate_notes(
    read: Sequence[_ReadSplit], pixel_type: PixelType, settings: DataSettings, label: str
) -> list[str]:
    """Return what is to be said of images that are in two splits; those that look alike are decoded again."""
    train, test = read[0], read[1] if len(read) > 1 else None
    if train.pictures is None or not len(train.labels):
        return []
    published = Published(
        train.labels, None if test is None else test.labels, train.details, None if test is None else test.details
    )
    learned = train.extremes[published.places(settings).train]
    if not len(learned):
        return []
    low, high = range_of(int(learned[:, 0].min()), int(learned[:, 1].max()), pixel_type, settings, label)
    pictures = None if test is None else test.pictures
    return notes_on_splits(published, settings, train.pictures, pictures, high - low)
