"""What reading a data set's images brought to light: which can't be read, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from space.errors import UnreadableImage
from workers.images.source import Block, Details
from workers.settings import DataSettings
from workers.wording import counted, listed, one_line

NAMED = 5  # files in a message


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
        self._noted = list[str]()
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
        self._noted.append(text)

    def notes(self) -> list[str]:
        """Return what is to be said of images that were read in the end."""
        said = [*self._noted, *self.size_notes()]
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
