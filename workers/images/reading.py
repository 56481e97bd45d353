"""What reading a data set's images brought to light: which can't be read, and how large they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from space.errors import UnreadableImage
from workers.images.data_info import Published
from workers.images.datasets import find_source
from workers.images.near_duplicates import Pictures, hashes_of, notes_on_splits
from workers.images.progress import progress
from workers.images.source import Block, Details, Labels, SourceSplit
from workers.settings import DataSettings
from workers.wording import counted, listed, one_line

NAMED = 5  # files in a message
WHITE = 255.0  # of the 8-bit images that are read through


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


def read_through(settings: DataSettings) -> DecodingRecord:
    """Decode every image of the data set, writing nothing, and return what that brought to light.

    Nearly the same images in two splits are among its notes, as of a data set that is prepared.

    Raises:
        UnknownDataset, DataNotFound: see `workers.images.datasets`. A missing set is not downloaded.
    """
    source = find_source(settings.model_copy(update={"download": False}))
    content = source.open()
    splits = [split for split in (content.train, content.test) if split is not None]
    record = DecodingRecord(sum(len(split.labels) for split in splits))
    with progress("Decoding", source.label, record.total) as advance, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        read = [_read_split(split, record, advance) for split in splits]
        for note in _duplicate_notes(read, settings):
            record.note(note)
    return record


class _ReadSplit(NamedTuple):
    """What could be read of a split: labels and details of the images, and the images as pictures."""

    labels: Labels
    details: Details | None
    pictures: Pictures | None  # None: single images can't be decoded again


def _read_split(split: SourceSplit, record: DecodingRecord, advance: Callable[[int], None]) -> _ReadSplit:
    at, places, hashes = 0, [np.arange(0)], [np.empty(0, dtype=np.uint64)]
    for block in split.blocks("uint8"):
        places.append(record.add(block, at, split.details))
        hashes.append(hashes_of(block.images))
        at += block.looked_at
        advance(block.looked_at)
    kept, image_at = np.concatenate(places), split.image_at
    details = None if split.details is None else split.details.at(kept)
    if image_at is None:
        return _ReadSplit(split.labels[kept], details, None)
    pictures = Pictures(np.concatenate(hashes), lambda place: image_at(int(kept[place])))
    return _ReadSplit(split.labels[kept], details, pictures)


def _duplicate_notes(read: Sequence[_ReadSplit], settings: DataSettings) -> list[str]:
    """Return what is to be said of images that are in two splits; those that look alike are decoded again."""
    train, test = read[0], read[1] if len(read) > 1 else None
    if train.pictures is None or not len(train.labels):
        return []
    published = Published(
        train.labels, None if test is None else test.labels, train.details, None if test is None else test.details
    )
    pictures = None if test is None else test.pictures
    return notes_on_splits(published, settings, train.pictures, pictures, scale=WHITE)
