"""Decoded images on disk: every data set becomes plain .npy files that all workers map into memory.

A mapped file is one copy in the page cache, however many processes read it. The cache folder holds

    <key>/               one data set at one shape; the key follows the images' content
        train_images.npy, train_labels.npy, and test_images.npy, test_labels.npy if its maker published a test split
        train_details.json, test_details.json   where the images are files: their names, groups, weights and splits
        content.json     label, shape, class names, hash of labels, images and details, and what decoding brought to
                         light: the files that can't be read, and what a person should know
        checked.json     size and time of each array's file when its content was last found to have that hash
    <key>.lock           held while <key> is written, by one process at a time; gone if what was asked for is refused
    <settings>.json      what `prepare` made of these settings: the key, what was said of the listing, the DataInfo

A <key> folder is written under another name and renamed when whole. The pointer file lets a worker find its images
without looking at a million source files, and keeps a study on the images that it was started with. What is in a <key>
folder is checked before it is used; one that is damaged is made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from space.errors import DataNotFound, DiskFull, ReadOnlyFolder
from workers.files import disk_errors, made_folder, write_atomically
from workers.images.array_files import write_splits
from workers.images.data_info import DataInfo, Published, describe
from workers.images.datasets import find_source
from workers.images.near_duplicates import Pictures, notes_on_splits
from workers.images.pixel_values import PixelStatistics, pixel_statistics
from workers.images.progress import progress
from workers.images.reading import Unreadable, check_unreadable
from workers.images.source import (
    BLOCK,
    Details,
    Images,
    Labels,
    Source,
    SourceImages,
    details_from_dict,
    details_to_dict,
    fingerprint,
)
from workers.images.splits import Positions
from workers.settings import DataSettings

FORMAT = 1  # raise it when the same source would be decoded to other pixels
FINGERPRINT_DIGITS = 16
LEARNED = "networks are trained on the validation images too, so what is said of these is better than of other images"
HASHED_BYTES = 2 << 30  # arrays of up to this many bytes are hashed at every `prepare`, larger ones once they change


class CachedArrays(NamedTuple):
    """The mapped images and labels of a data set, as published; read-only."""

    train_images: Images
    train_labels: Labels
    test_images: Images | None
    test_labels: Labels | None
    train_details: Details | None = None
    test_details: Details | None = None

    @property
    def published(self) -> Published:
        """All but the images."""
        return Published(self.train_labels, self.test_labels, self.train_details, self.test_details)


def prepare(settings: DataSettings, cache: Path) -> DataInfo:
    """Decode the data set into the cache, unless it is there and whole, and return its description.

    Called once by the controller before workers start; a second call only checks.

    Raises:
        UnknownDataset, DataNotFound: see `workers.images.datasets`.
        UnreadableImage: files can't be read; of the settings it depends how many are too many.
        DiskFull, ReadOnlyFolder: the cache can't be written; nothing half-written stays in it.
    """
    source = find_source(settings)
    key = _key_of(source, settings)
    with disk_errors(cache):
        if _is_whole(cache / key, HASHED_BYTES):
            pointer = _read_pointer(settings, cache)
            if pointer is not None and pointer["key"] == key and pointer.get("listed") == list(source.notes):
                info = DataInfo.from_dict(pointer["info"])
                if settings.images is None or _is_split_so(info, settings, cache / key):
                    return _as_used(info, settings)
        with _locked(cache, key):
            if not (_is_whole(cache / key, HASHED_BYTES) and _says_what_was_read(cache / key)):
                shutil.rmtree(cache / key, ignore_errors=True)
                _write_data_set(source, settings, cache / key)
            info = _describe(settings, cache / key, source.notes)
            pointer = {"key": key, "listed": source.notes, "info": info.to_dict()}
            write_atomically(_pointer_file(settings, cache), json.dumps(pointer).encode())
    return _as_used(info, settings)


def outline(settings: DataSettings) -> DataInfo:
    """Return `prepare`'s DataInfo, except that mean and std are 0 and 1, without reading the images of a folder.

    Raises:
        UnknownDataset, DataNotFound: see `workers.images.datasets`. A missing set is not downloaded.
    """
    source = find_source(settings.model_copy(update={"download": False}))
    content = source.open()
    names = {"label": source.label, "shape": source.shape, "class_names": content.class_names}
    unknown = PixelStatistics((0.0,) * source.shape[0], (1.0,) * source.shape[0])
    return describe(settings, names, _published(content), lambda places: unknown, content.notes)


class FoundImages(NamedTuple):
    """A data set's images; those that aren't decoded yet have no fingerprint and no arrays."""

    fingerprint: str  # see `DataInfo`
    class_names: tuple[str, ...]
    published: Published
    arrays: tuple[Images, Images | None] | None  # as published, of training and test


def find_decoded(settings: DataSettings, cache: Path) -> FoundImages | None:
    """Return the settings' images if the cache holds them, for whatever study they were decoded; None if it doesn't.

    Nothing is decoded, downloaded or written.

    Raises:
        UnknownDataset, DataNotFound: see `workers.images.datasets`.
    """
    folder = cache / _key_of(find_source(settings.model_copy(update={"download": False})), settings)
    try:
        content = json.loads((folder / "content.json").read_text())
        arrays = _map_arrays(folder)
        sha256, names = content["sha256"], tuple(content["class_names"])
        return FoundImages(
            sha256[:FINGERPRINT_DIGITS], names, arrays.published, (arrays.train_images, arrays.test_images)
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError):  # a launch makes it anew
        return None


def find_listed(settings: DataSettings) -> FoundImages:
    """Return the settings' images as they are listed; nothing is decoded, downloaded or written.

    Raises:
        UnknownDataset, DataNotFound: see `workers.images.datasets`.
    """
    content = find_source(settings.model_copy(update={"download": False})).open()
    return FoundImages("", content.class_names, _published(content), None)


def _published(content: SourceImages) -> Published:
    train, test = content.train, content.test
    of_test = (None, None) if test is None else (test.labels, test.details)
    return Published(train.labels, of_test[0], train.details, of_test[1])


def open_prepared(settings: DataSettings, cache: Path) -> tuple[DataInfo, CachedArrays]:
    """Return the arrays that `prepare` made for these settings, mapped into memory; damaged ones are made anew.

    Raises:
        DataNotFound: the data set wasn't prepared in this cache. When it is made anew, see `prepare`.
    """
    pointer = _read_pointer(settings, cache, written_now=False)
    if pointer is None or not (cache / pointer["key"]).is_dir():
        raise DataNotFound(f"{settings.dataset!r} isn't prepared in {str(cache)!r}: run prepare() with these settings")
    if not _is_whole(cache / pointer["key"]):
        prepare(settings, cache)
        pointer = _read_pointer(settings, cache) or pointer
    return _as_used(DataInfo.from_dict(pointer["info"]), settings), _map_arrays(cache / pointer["key"])


# --- reading ----------------------------------------------------------------------------------------------------


def _key_of(source: Source, settings: DataSettings) -> str:
    return fingerprint(FORMAT, source.fingerprint, *([] if settings.bits is None else ["bits", settings.bits]))[:16]


def _as_used(info: DataInfo, settings: DataSettings) -> DataInfo:
    """Return the description of a data set with what the settings make of its splits, where that is worth a note."""
    return replace(info, notes=(*info.notes, LEARNED)) if settings.with_validation else info


def _pointer_file(settings: DataSettings, cache: Path) -> Path:
    # What doesn't choose images is left out, so that a study may change it without a second pointer.
    plain = {"folder": "", "download": False, "crop_padding": None, "flip": None, "with_validation": False}
    same = settings.model_copy(update=plain)
    return cache / f"{same.digest()[:16]}.json"


def _read_pointer(settings: DataSettings, cache: Path, written_now: bool = True) -> dict[str, Any] | None:
    """Return what `prepare` wrote for these settings, by an earlier version too unless `written_now`."""
    try:
        pointer: dict[str, Any] = json.loads(_pointer_file(settings, cache).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a damaged one is written again
        return None
    whole = isinstance(pointer, dict) and {"key", "info"} <= pointer.keys()
    needed = {field.name for field in fields(DataInfo) if written_now or field.default is MISSING}
    return pointer if whole and pointer["info"].keys() >= needed else None


def _is_whole(folder: Path, hashed_bytes: int = 0) -> bool:
    """Whether a data set's arrays hold what was written.

    They are hashed where their files are not as they were when this was last found, or have no more than
    `hashed_bytes`.
    """
    try:
        content = json.loads((folder / "content.json").read_text())
        arrays = _map_arrays(folder)
        for images, labels in (arrays[:2], arrays[2:4]):
            if images is not None and (labels is None or images.shape != (len(labels), *content["shape"])):
                return False
        files = _sizes_and_times(folder)
        if sum(size for size, _ in files.values()) > hashed_bytes and _checked(folder) == files:
            return True
        digest = _digest_of(arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError):  # missing, cut off, or not what we write
        return False
    if digest != content["sha256"]:
        return False
    with suppress(OSError, DiskFull, ReadOnlyFolder):  # then it is hashed again the next time
        if _checked(folder) != files:
            write_atomically(folder / "checked.json", json.dumps(files).encode())
    return True


def _is_split_so(info: DataInfo, settings: DataSettings, folder: Path) -> bool:
    """Whether a data set is split as was written; an earlier version chose fewer images otherwise."""
    places = _map_arrays(folder).published.places(settings)
    return (len(places.train), len(places.validation)) == (info.train_images, info.validation_images)


def _says_what_was_read(folder: Path) -> bool:
    """Whether a whole data set's content tells what decoding brought to light from what was said of its listing."""
    content = json.loads((folder / "content.json").read_text())
    return "read" in content or not content.get("notes")  # before there were notes, nothing was left out


def _digest_of(arrays: CachedArrays) -> str:
    """Return the SHA-256 of labels and images, and of what else decides how they are used; not of their names."""
    digest = hashlib.sha256()
    for images, labels in ((arrays.train_images, arrays.train_labels), (arrays.test_images, arrays.test_labels)):
        if images is not None:
            digest.update(np.ascontiguousarray(labels).data)
            for start in range(0, len(images), BLOCK):
                digest.update(images[start : start + BLOCK].data)
    for details in filter(None, (arrays.train_details, arrays.test_details)):
        used = details_to_dict(details) | {"names": None}
        if any(value is not None for value in used.values()):
            digest.update(json.dumps(used, sort_keys=True).encode())
    return digest.hexdigest()


def _sizes_and_times(folder: Path) -> dict[str, list[int]]:
    files = [*sorted(folder.glob("*.npy")), *sorted(folder.glob("*_details.json"))]
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _checked(folder: Path) -> Any:
    try:
        return json.loads((folder / "checked.json").read_text())
    except (OSError, ValueError):
        return None


def _map_arrays(folder: Path) -> CachedArrays:
    files = [folder / f"{split}_{kind}.npy" for split in ("train", "test") for kind in ("images", "labels")]
    # A plain view of the map: numpy's memmap class costs microseconds at every indexing.
    arrays = [np.asarray(np.load(file, mmap_mode="r")) if file.is_file() else None for file in files]
    details = [_read_details(folder / f"{split}_details.json") for split in ("train", "test")]
    return CachedArrays(*arrays, *details)  # type: ignore[arg-type]  # the training pair is always there


def _read_details(file: Path) -> Details | None:
    return details_from_dict(json.loads(file.read_text())) if file.is_file() else None


def _describe(settings: DataSettings, folder: Path, listed: Sequence[str]) -> DataInfo:
    """Check and describe a decoded data set; `listed` is what is to be said of its listing as it is now."""
    arrays, content = _map_arrays(folder), json.loads((folder / "content.json").read_text())
    read = content.get("read", {"total": 0, "unreadable": [], "said": []})
    check_unreadable(content["label"], [Unreadable(*bad) for bad in read["unreadable"]], read["total"], settings)

    def statistics(train: Positions) -> PixelStatistics:
        return pixel_statistics(arrays.train_images, train, settings, content["label"])

    info = describe(settings, content, arrays.published, statistics, (*listed, *read["said"]))
    if all(std == 1.0 for std in info.std):  # of a channel that never varies
        raise DataNotFound(
            f"{info.dataset} has nothing to learn from: all pixels of its {info.train_images} training images are the "
            "same; correct the images."
        )
    notes = (*info.notes, *_duplicate_notes(arrays, settings, info.pixel_range[1] - info.pixel_range[0]))
    return replace(info, fingerprint=content["sha256"][:FINGERPRINT_DIGITS], notes=notes)


def _duplicate_notes(arrays: CachedArrays, settings: DataSettings, scale: float) -> list[str]:
    """Return what is to be said of images of a user's own that are in two splits."""
    if arrays.train_details is None:
        return []
    test = None if arrays.test_images is None else Pictures.of(arrays.test_images)
    return notes_on_splits(arrays.published, settings, Pictures.of(arrays.train_images), test, scale)


# --- writing ----------------------------------------------------------------------------------------------------


@contextmanager
def _locked(cache: Path, key: str) -> Iterator[None]:
    """Let no other process write a data set; if the block raises, neither the lock nor folders made for it stay."""
    lock = cache / f"{key}.lock"
    with made_folder(cache), FileLock(lock):  # released by the system however the process ends
        try:
            yield
        except BaseException:
            lock.unlink(missing_ok=True)  # while it is held: whoever waits for it finds that its name is gone
            raise


def _write_data_set(source: Source, settings: DataSettings, folder: Path) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process; this one holds the lock
    try:
        partial.mkdir()
        content = source.open()
        splits = {"train": content.train} | ({} if content.test is None else {"test": content.test})
        total = sum(len(split.labels) for split in splits.values())
        with progress("Decoding", source.label, total) as advance, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # of damaged notes in a photo, which aren't looked at
            record = write_splits(splits, source.shape, settings.bits, partial, advance)
        record.check(source.label, settings)
        names: dict[str, Any] = {"label": source.label, "shape": source.shape, "class_names": content.class_names}
        names |= {"read": record.to_dict(), "sha256": _digest_of(_map_arrays(partial))}
        (partial / "checked.json").write_text(json.dumps(_sizes_and_times(partial)))
        (partial / "content.json").write_text(json.dumps(names))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
