"""A manifest's rows as a listing: each file found, and every rule that a row can break, with all that break it.

Paths are relative to the manifest's folder. What annotation tools export may name files as on their server; then they
are looked for by their names below the manifest's folder.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from space.errors import DataNotFound
from workers.images.listing.annotations import read_manifest
from workers.images.listing.listing import SPLITS, Entry, Listing, Split, listing_of
from workers.images.listing.rows import Row
from workers.images.listing.walk import LeftOut, find_images, is_directory, is_image_name
from workers.images.progress import progress
from workers.wording import counted, has_controls, listed, one_line

UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file
LIKE_A_PATH = re.compile(r"^(\.{0,2}[/\\]|~[/\\]|[A-Za-z]:\\|\.{1,2}$)")
ADDRESS = re.compile(r"^(https?|ftp|file|s3a?|gs|gcs|az|azure-blob|wasbs?|abfss?|hdfs|dbfs)://", re.IGNORECASE)
NAMED = 3  # broken rows in a message
NO_SPLIT = ("", "unassigned", "none")


class _Broken(NamedTuple):
    """A rule, and the rows that break it."""

    rule: str
    advice: str
    rows: list[str]


def list_manifest(path: Path, group: str | None = None) -> Listing:
    """Return the images that a manifest names.

    Args:
        path: the manifest: a file, or the folder of a tool's export.
        group: the column that says each image's group; None: "group", if there is one.

    Raises:
        DataNotFound: it can't be read, or a row breaks a rule; all such rows are counted, and the first ones named.
        InvalidSettings: there is no such column.
    """
    manifest = read_manifest(path, group)
    whose = f"the manifest {str(path)!r}"
    root = path if is_directory(path) else path.parent
    left_out, unreadable, rows = LeftOut(), set[str](), manifest.rows
    if manifest.is_tools:
        unlabelled = [row for row in rows if not row.labels]
        for row in unlabelled:
            left_out.add(row.path, "image without a label", "images without a label")
        rows = [row for row in rows if row.labels]
    check_rows(whose, rows)
    files = _Files(root, unreadable) if manifest.is_tools else None
    with progress("Looking for the files of", path.name, len(rows)) as advance:
        places = [_found(root, row.path, files, advance) for row in rows]
    missing = [_shown(row) for row, place in zip(rows, places, strict=True) if place is None]
    _refuse(whose, _Broken("name a file that exists", "add the files, or take the rows out", missing))
    found = [place for place in places if place is not None]
    by_name = files.used if files is not None else []
    by_names = (f"{counted(len(by_name), 'file')} found by the name alone ({listed(by_name)})",) if by_name else ()
    entries = list(_entries(whose, root, rows, found, left_out))
    _note_unnamed(root, entries, left_out, unreadable)
    left_out.add_unreadable(unreadable)
    return listing_of(
        root,
        f"{one_line(path.resolve().name, 255)} (manifest)",
        entries,
        (*manifest.notes, *by_names, *left_out.notes()),
    )


# --- rules of rows ----------------------------------------------------------------------------------------------


def check_rows(whose: str, rows: Sequence[Row], noun: str = "row") -> None:
    """Raise DataNotFound if a row breaks a rule that doesn't depend on its file; `whose` and `noun` are for people."""
    if not rows:
        raise DataNotFound(f"{whose} must name images, but names none; add {noun}s.")
    rules = (
        _Broken("name a file", "write its path", [row.where for row in rows if not row.path]),
        _Broken("have a label", "write its class", [_shown(row) for row in rows if not "".join(row.labels).strip()]),
        _Broken(
            "have a label without control characters",
            "rename it",
            [f"{_shown(row)}: {one_line(label)}" for row in rows for label in row.labels if has_controls(label)],
        ),
        _Broken(
            "have one label",
            "decide for one; images of several classes at once are not what these networks are for",
            [f"{_shown(row)}: {listed(row.labels)}" for row in rows if len(set(row.labels)) > 1],
        ),
        _Broken(
            "have a class's name as label, not a path",
            "rename it, or exchange the columns",
            [f"{_shown(row)}: {one_line(row.labels[0])}" for row in rows if row.labels and _is_path(row.labels[0])],
        ),
        _Broken(
            "say train, validation or test as split, or nothing",
            "correct it",
            [f"{_shown(row)}: {one_line(row.split)}" for row in rows if not _is_split(row.split)],
        ),
        _Broken(
            "have a weight of 0 or more",
            "correct it",
            [f"{_shown(row)}: {one_line(row.weight)}" for row in rows if not _is_weight(row.weight)],
        ),
    )
    for rule in rules:
        _refuse(whose, rule, noun)
    if all(row.weight and float(row.weight) == 0 for row in rows):
        raise DataNotFound(f"some image of {whose} must weigh more than 0, but none does; raise one.")


def _refuse(whose: str, broken: _Broken, noun: str = "row") -> None:
    if broken.rows:
        count = counted(len(broken.rows), noun)
        verb = "doesn't" if len(broken.rows) == 1 else "don't"
        named = "; ".join(broken.rows[:NAMED])
        more = f"; and {len(broken.rows) - NAMED:,} more" if len(broken.rows) > NAMED else ""
        raise DataNotFound(
            f"each {noun} of {whose} must {broken.rule}, but {count} {verb} ({named}{more}); {broken.advice}."
        )


def _shown(row: Row) -> str:
    return f"{row.where}, {one_line(row.path)}"


def _is_path(label: str) -> bool:
    return bool(LIKE_A_PATH.match(label)) or (bool(set("/\\") & set(label)) and is_image_name(label))


def _is_split(split: str) -> bool:
    return split.lower() in SPLITS or split.lower() in NO_SPLIT


def _is_weight(weight: str) -> bool:
    try:
        return not weight or 0 <= float(weight) < math.inf
    except ValueError:
        return False


# --- files ------------------------------------------------------------------------------------------------------


class _Files:
    """The images below a folder by their names, which are listed once the first of them is asked for."""

    def __init__(self, root: Path, unreadable: set[str]) -> None:
        self._root = root
        self._unreadable = unreadable  # takes the folders that can't be looked through
        self.used: list[str] = []  # those that were found by their names alone

    def found(self, path: str) -> str | None:
        """Return the path of the only image that is called as a server's path says; see `_own_names`."""
        found = next(filter(None, map(self.only, _own_names(self._root, path))), None)
        self.used += [] if found is None else [found]
        return found

    def only(self, name: str) -> str | None:
        """Return the path of the only image of this name."""
        called = self._by_name.get(name, [])
        return called[0] if len(called) == 1 else None

    def without_suffix(self, path: str) -> str | None:
        """Return the path of the image that is called so but for a suffix that the tool left out."""
        bases = (base for place in _places(path) if not ADDRESS.match(place) for base in (place, f"images/{place}"))
        return next(filter(None, (self._by_base.get(os.path.normpath(base)) for base in bases)), None)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        by_name: dict[str, list[str]] = defaultdict(list)
        for name in self._names:
            by_name[name.rpartition("/")[2]].append(name)
        return by_name

    @cached_property
    def _by_base(self) -> dict[str, str]:
        """Each path without its suffix, and the path; of several, the one whose suffix comes first."""
        return {os.path.splitext(name)[0]: name for name in sorted(self._names, reverse=True)}  # noqa: PTH122

    @cached_property
    def _names(self) -> list[str]:
        return [image.name for image in find_images(self._root, "", LeftOut(), self._unreadable)]


def _found(root: Path, path: str, files: _Files | None, advance: Callable[[int], None]) -> str | None:
    """Return a file's path, relative to `root` if it lies there; None if there is none."""
    advance(1)
    for candidate in _candidates(path) if files is not None else (path, path.replace("\\", "/")):
        if _is_file(root / candidate):
            return os.path.normpath(candidate)
    return None if files is None else files.without_suffix(path) or files.found(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is longer than names can be
        return False


def _candidates(path: str) -> Iterator[str]:
    """Yield where a tool's file may be: as it says, or in `images`."""
    for place in _places(path):
        if not ADDRESS.match(place):
            yield from (place, place.lstrip("/"), f"images/{place}")


def _places(path: str) -> tuple[str, ...]:
    """Return a path and those that its query names; Label Studio's is /data/local-files/?d=pets/cat.png."""
    of_query = parse_qs(_split(path).query).get("d", ()) if _is_servers(path) else ()
    return (path, *of_query)


def _is_servers(path: str) -> bool:
    """Whether a path is a server's address, so that %20 is a space in it and what follows ? is no part of a name."""
    return bool(ADDRESS.match(path)) or path.startswith("/data/")


def _split(path: str) -> SplitResult:
    try:
        return urlsplit(path)
    except ValueError:  # such as https://[pets/cat.png
        return SplitResult("", "", path, "", "")


def _own_names(root: Path, path: str) -> Iterator[str]:
    """Yield what the file of a server's path may be called here; nothing for one whose folder is here."""
    *others, place = _places(path)
    if _is_servers(path) and not others:
        place = unquote(_split(path).path)
    folder, _, name = place.replace("\\", "/").rpartition("/")
    if folder and not Path(folder).is_absolute() and any(is_directory(root / base / folder) for base in ("", "images")):
        return
    yield from (name, UPLOADED.sub("", name))


def _entries(whose: str, root: Path, rows: Sequence[Row], found: Sequence[str], left_out: LeftOut) -> Iterator[Entry]:
    """Yield each file once; it must have one label and one split wherever it is named."""
    first: dict[str, Row] = {}
    labels, splits, others = [], [], []
    for row, name in zip(rows, found, strict=True):
        known = first.setdefault(name, row)
        if known is row:
            continue
        left_out.add(name, "row that names a file again", "rows that name a file again")
        if known.labels[0] != row.labels[0]:
            labels.append(f"{_shown(row)}: {one_line(known.labels[0])} and {one_line(row.labels[0])}")
        elif _split_of(known) != _split_of(row):
            splits.append(f"{_shown(row)}: {_split_of(known) or 'none'} and {_split_of(row) or 'none'}")
        elif known.group != row.group:
            others.append(f"{_shown(row)}: {one_line(known.group or 'none')} and {one_line(row.group or 'none')}")
        elif _weight_of(known) != _weight_of(row):
            others.append(f"{_shown(row)}: {known.weight or 'none'} and {row.weight or 'none'}")
    _refuse(whose, _Broken("give a file the label that it has elsewhere", "decide for one label", labels))
    _refuse(whose, _Broken("put a file into the split that it is in elsewhere", "decide for one split", splits))
    _refuse(whose, _Broken("give a file the group and weight that it has elsewhere", "decide for one", others))
    for name, row in first.items():
        status = (root / name).stat()
        stat = status.st_size, status.st_mtime_ns
        identity = status.st_dev, status.st_ino
        yield Entry(name, row.labels[0], stat, _split_of(row), row.group, _weight_of(row), identity)


def _weight_of(row: Row) -> float | None:
    return float(row.weight) if row.weight else None


def _split_of(row: Row) -> Split | None:
    return SPLITS.get(row.split.lower())


def _note_unnamed(root: Path, entries: Sequence[Entry], left_out: LeftOut, unreadable: set[str]) -> None:
    """Count the images that lie among those that are named."""
    inside = [entry.name for entry in entries if not entry.name.startswith(("/", ".."))]
    if not inside:
        return
    below = os.path.commonpath([name.rpartition("/")[0] for name in inside])
    named = {entry.identity for entry in entries}
    for image in find_images(root, below, LeftOut(), unreadable):
        if image.identity not in named:
            left_out.add(image.name, "image that the manifest doesn't name", "images that the manifest doesn't name")
