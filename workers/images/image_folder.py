"""A data set made of folders of images: PATH/<class>/<image>, or the same below PATH/train and PATH/test (or val).

Where `test` and `val` both exist, `test` is the test split and `val` stays unused: validation images are always held
out of the training images. A folder `train` of images, beside folders that are no split's, is a class like these. Phone
photos are turned upright by their EXIF tag.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from space.errors import DataNotFound, UnreadableImage
from workers.images.source import (
    BLOCK,
    Images,
    Labels,
    Shape,
    Source,
    SourceImages,
    SourceSplit,
    fingerprint,
    read_image,
)

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
TEST_FOLDERS = ("test", "val")  # the first that exists

_GROUP = 64  # images decoded by a thread at a time; one each would cost as much in hand-overs as in decoding


@dataclass(frozen=True)
class _ClassFolders:
    names: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Labels  # (N,), the class of each file
    stats: tuple[tuple[int, int], ...]  # size in bytes and mtime in nanoseconds of each file


def find_image_folder(root: Path, shape: Shape) -> Source:
    """Return the image folder `root` as a source; its fingerprint follows every file's name, size and mtime.

    Raises:
        DataNotFound: it is missing, can't be read, isn't laid out in class folders, or train and test differ in them.
    """
    if not root.is_dir():
        raise DataNotFound(f'the image folder {str(root)!r} doesn\'t exist: correct `dataset = "imagefolder:PATH"`')
    with _reading(root):
        split_by_maker = _is_split(root)
    train = _scan(root / "train" if split_by_maker else root)
    test_folders = [root / name for name in TEST_FOLDERS if split_by_maker and (root / name).is_dir()]
    test = _scan(test_folders[0]) if test_folders else None
    if test is not None and test.names != train.names:
        raise DataNotFound(
            f"train and test of {str(root)!r} must have the same class folders, but "
            f"{sorted(set(train.names) ^ set(test.names))} are only in one of them"
        )
    parts = [part for part in (train, test) if part is not None]
    listing = [[[file.relative_to(root).as_posix() for file in part.files], part.stats] for part in parts]
    label = f"{root.resolve().name} (image folder)"

    def read() -> SourceImages:
        return SourceImages(train.names, _split_of(train, shape), None if test is None else _split_of(test, shape))

    return Source(label, shape, fingerprint(label, shape, train.names, listing), read)


def _is_split(root: Path) -> bool:
    """Whether the folder holds a training split in `train`, rather than images of a class that is called so."""
    if not (root / "train").is_dir():
        return False
    return set(_class_names(root)) <= {"train", "val", "test"} or not _images_in(root / "train")


def _class_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images_in(folder: Path) -> list[tuple[str, tuple[int, int]]]:
    """Return name, size and mtime of a folder's images, by name."""
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, (entry.stat().st_size, entry.stat().st_mtime_ns))
            for entry in entries
            if entry.is_file()
            and not entry.name.startswith(".")
            and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  (a million files)
        )


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn the operating system's word for a folder that can't be listed into ours."""
    try:
        yield
    except OSError as error:
        raise DataNotFound(f"the image folder {str(folder)!r} can't be read: {error.strerror}") from error


def _scan(folder: Path) -> _ClassFolders:
    """List the images of each class folder (names that start with a dot and other files are skipped)."""
    with _reading(folder):
        names = _class_names(folder)
        _refuse_other_than_utf8(folder, names)
        listed: list[tuple[Path, int, tuple[int, int]]] = []
        for index, name in enumerate(names):
            images = _images_in(folder / name)
            if not images:
                raise DataNotFound(
                    f"the class folder {str(folder / name)!r} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}): "
                    "lay them out as PATH/<class>/<image> or PATH/train/<class>/<image>"
                )
            listed += [(folder / name / file, index, stat) for file, stat in images]
    if len(names) < 2:
        raise DataNotFound(f"{str(folder)!r} must hold at least 2 class folders of images, but holds {len(names)}")
    files, labels, stats = zip(*listed, strict=True)
    return _ClassFolders(tuple(names), files, np.asarray(labels, dtype=np.int64), stats)


def _refuse_other_than_utf8(folder: Path, names: Sequence[str]) -> None:
    """Raise DataNotFound for a class whose name is no text: databases, pages and bundles show it."""
    for name in names:
        if any("\udc80" <= letter <= "\udcff" for letter in name):  # how Python keeps other bytes in a name
            raise DataNotFound(
                f"the class folder {os.fsencode(name)!r} in {str(folder)!r} has a name that isn't UTF-8; rename it"
            )


def _split_of(folders: _ClassFolders, shape: Shape) -> SourceSplit:
    def blocks() -> Iterator[Images]:
        # Pillow releases the interpreter lock while it decodes and shrinks, so threads are enough.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(folders.files), BLOCK):
                files = folders.files[start : start + BLOCK]
                groups = [files[at : at + _GROUP] for at in range(0, len(files), _GROUP)]
                yield np.concatenate(list(pool.map(lambda group: _decode(group, shape), groups)))

    return SourceSplit(folders.labels, blocks)


def _decode(files: Sequence[Path], shape: Shape) -> Images:
    images = np.empty((len(files), *shape), dtype=np.uint8)
    for index, file in enumerate(files):
        try:
            images[index] = read_image(file, shape)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types on broken files
            raise UnreadableImage(f"{file} can't be read as an image ({error}): repair or remove it") from error
    return images
