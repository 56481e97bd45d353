"""Which image files a folder holds, its folders' folders included, and what is passed over, which is counted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from space.errors import DataNotFound
from workers.wording import counted, listed

# By decoder: see `workers.preprocessing.FORMATS`.
SUFFIXES = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
ARCHIVE_OF_MACOS = "__MACOSX"  # a folder of shadow files, one beside each image, in archives that macOS packed
NAMED = 3  # files in a note


Identity: TypeAlias = tuple[int, int]  # of a file by whatever name: its device and inode


class Found(NamedTuple):
    """A file: its path relative to the folder that was looked through, size in bytes and mtime in nanoseconds."""

    name: str
    size: int
    mtime_ns: int
    identity: Identity


class LeftOut:
    """What was passed over: how often for which reason, and the first few names."""

    def __init__(self) -> None:
        self._by_reason: dict[tuple[str, str], tuple[int, list[str]]] = {}

    def add(self, name: str, singular: str, plural: str) -> None:
        """Count one more; the reason is a noun such as "hidden file"."""
        count, names = self._by_reason.get((singular, plural), (0, []))
        self._by_reason[singular, plural] = (count + 1, names if len(names) == NAMED else [*names, name])

    def add_unreadable(self, folders: Iterable[str]) -> None:
        """Count the folders that couldn't be read."""
        for folder in sorted(folders):
            self.add(folder, "folder that can't be read", "folders that can't be read")

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each reason."""
        return tuple(
            f"left out: {counted(count, *reason)} ({listed(names, count)})"
            for reason, (count, names) in self._by_reason.items()
        )


def is_image_name(name: str) -> bool:
    """Whether a file's suffix, in whatever case, is that of a decoder that is used."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  (a million files)


def find_images(root: Path, below: str, left_out: LeftOut, unreadable: set[str] | None = None) -> list[Found]:
    """Return the images in the folder `below` of `root` and in all folders in it, by their names relative to `root`.

    Every folder is read once, whatever links lead to it, so the search ends. A link to a folder above, in which the
    images of all classes lie, is not followed.

    Args:
        root: what names are relative to.
        below: the folder to look through; "" for `root` itself.
        left_out: counts what is passed over.
        unreadable: takes the folders that can't be read, where the data set doesn't depend on them; None: it does.

    Raises:
        DataNotFound: a folder can't be read, and `unreadable` is None.
    """
    found: list[Found] = []
    seen = _above(root, below)
    waiting = [below]
    while waiting:
        folder = waiting.pop()
        with reading(root / folder) if unreadable is None else _collecting(folder, unreadable):
            status = (root / folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                left_out.add(folder, "link to a folder that is read already", "links to folders that are read already")
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if is_hidden(entry, name, left_out):
                        continue
                    if is_folder(entry):
                        waiting.append(name)
                    elif is_image(entry, name, left_out):
                        status = entry.stat()
                        found.append(Found(name, status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino)))
    return sorted(found)


def _above(root: Path, below: str) -> set[tuple[int, int]]:
    """Return device and inode of the folders above `root / below`."""
    above: set[tuple[int, int]] = set()
    for folder in (root / below).absolute().parents:
        with contextlib.suppress(OSError):
            status = folder.stat()
            above.add((status.st_dev, status.st_ino))
    return above


def is_hidden(entry: os.DirEntry[str], name: str, left_out: LeftOut) -> bool:
    """Whether a file or folder is none of the user's own; it is counted then."""
    if entry.name == ARCHIVE_OF_MACOS:
        left_out.add(name, "folder of macOS", "folders of macOS")
    elif entry.name.startswith("."):
        left_out.add(
            name, *(("hidden folder", "hidden folders") if is_folder(entry) else ("hidden file", "hidden files"))
        )
    else:
        return False
    return True


def is_image(entry: os.DirEntry[str], name: str, left_out: LeftOut) -> bool:
    """Whether an entry that is no folder is an image by its name; anything else is counted."""
    if not _is_file(entry):
        dangling = entry.is_symlink()
        kinds = ("link that leads nowhere", "links that lead nowhere") if dangling else ("device", "devices or pipes")
        left_out.add(name, *kinds)
    elif not is_image_name(entry.name):
        left_out.add(name, "file that is no image by its suffix", "files that are no images by their suffix")
    else:
        return True
    return False


def is_directory(path: Path) -> bool:
    """Whether a path is a folder's; one that no file can have (too long, with a zero byte) isn't."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link that leads to itself doesn't."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


@contextlib.contextmanager
def _collecting(folder: str, unreadable: set[str]) -> Iterator[None]:
    """Add a folder that can't be listed to a set."""
    try:
        yield
    except OSError:
        unreadable.add(folder or ".")


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn the operating system's word for a folder that can't be listed into ours."""
    try:
        yield
    except OSError as error:
        raise DataNotFound(f"the image folder {str(folder)!r} can't be read: {error.strerror}") from error
