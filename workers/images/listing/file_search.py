"""Where the files are that a manifest names.

A table's own paths are taken as they are written. What a tool exports may name files as on its own server, or as on
Windows. Then, in this order, a file is

- what the path says, or the same in `images`, with / for \\;
- what is called so but for a suffix that the tool left out;
- of the images that have the same name, the one whose path shares the longest ending with the server's.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from workers.images.listing.walk import LeftOut, find_images, is_directory, is_image_name

UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file
ADDRESS = re.compile(r"^(https?|ftp|file|s3a?|gs|gcs|az|azure-blob|wasbs?|abfss?|hdfs|dbfs)://", re.IGNORECASE)


class Match(NamedTuple):
    """What was found for a manifest's path."""

    name: str | None = None  # the file's path, relative to the root if it lies there
    shared: int = 0  # how many last parts of the path it was found by; all of its own, where it is what the path says
    is_exact: bool = False
    alike: tuple[str, ...] = ()  # images that it may be as well as any other of them; then it has no name


class FileSearch:
    """The files of a manifest; the images below its folder are listed once the first of them is looked for."""

    def __init__(self, root: Path, is_tools: bool, unreadable: set[str]) -> None:
        self._root = root
        self._is_tools = is_tools
        self._unreadable = unreadable  # takes the folders that can't be looked through
        self._endings: dict[str, dict[tuple[str, ...], list[str]]] = {}

    def matches(self, paths: Sequence[str], advance: Callable[[int], None]) -> list[Match]:
        """Return what is found for each path; `advance` is told each.

        A file that several paths lead to is that of those which share the longest ending with it: the others' own
        files are missing.
        """
        found = []
        for path in paths:
            found.append(self._match(path))
            advance(1)
        longest: dict[str, int] = defaultdict(int)
        for match in found:
            if match.name is not None:
                longest[match.name] = max(longest[match.name], match.shared)
        return [Match() if match.name and match.shared < longest[match.name] else match for match in found]

    def _match(self, path: str) -> Match:
        for candidate in _candidates(path) if self._is_tools else (path, path.replace("\\", "/")):
            if _is_file(self._root / candidate):
                return _exact(candidate)
        if not self._is_tools:
            return Match()
        without_suffix = self._without_suffix(path)
        if without_suffix is not None:
            return _exact(without_suffix)
        ends = map(self._by_ending, _endings_of(self._root, path))
        return next((match for match in ends if match != Match()), Match())

    def _without_suffix(self, path: str) -> str | None:
        return next(filter(None, (self._by_base.get(os.path.normpath(base)) for base in _candidates(path))), None)

    def _by_ending(self, parts: tuple[str, ...]) -> Match:
        """Return the image whose path shares the longest ending with these parts."""
        called = self._by_name.get(parts[-1], [])
        if len(called) < 2:
            return Match(called[0], _shared(called[0], parts)) if called else Match()
        if parts[-1] not in self._endings:
            self._endings[parts[-1]] = _by_all_endings(called)
        endings = self._endings[parts[-1]]
        length = next(length for length in range(len(parts), 0, -1) if parts[-length:] in endings)
        alike = endings[parts[-length:]]
        return Match(alike[0], length) if len(alike) == 1 else Match(alike=tuple(alike))

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


def _exact(path: str) -> Match:
    name = os.path.normpath(path)
    return Match(name, name.count("/") + 1, is_exact=True)


def _by_all_endings(names: Sequence[str]) -> dict[tuple[str, ...], list[str]]:
    endings: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        parts = tuple(name.split("/"))
        for start in range(len(parts)):
            endings[parts[start:]].append(name)
    return endings


def _shared(name: str, parts: Sequence[str]) -> int:
    """Return how many last parts of a path are those of a file's."""
    pairs = zip(reversed(name.split("/")), reversed(parts), strict=False)
    return next(
        (count for count, (one, other) in enumerate(pairs) if one != other), min(name.count("/") + 1, len(parts))
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is longer than names can be, or has a zero byte
        return False


# --- a tool's paths ---------------------------------------------------------------------------------------------


def looks_like_an_image(path: str) -> bool:
    """Whether text is the path of an image on a tool's server or here, by its suffix or by how it begins."""
    return _is_servers(path) or any(is_image_name(place) for place in _places(path))


def _candidates(path: str) -> Iterator[str]:
    """Yield where a tool's file may be: as it says, or in `images`."""
    for place in _places(path):
        for spelling in dict.fromkeys((place, place.replace("\\", "/"))) if not ADDRESS.match(place) else ():
            yield from (spelling, spelling.lstrip("/"), f"images/{spelling}")


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


def _endings_of(root: Path, path: str) -> Iterator[tuple[str, ...]]:
    """Yield the parts that the file of a server's path may have here; nothing for one whose folder is here."""
    *others, place = _places(path)
    if _is_servers(path) and not others:
        address = _split(path)
        place = unquote(f"/{address.netloc}/{address.path}")
    place = place.replace("\\", "/")
    folder, _, name = place.rpartition("/")
    if folder and not Path(folder).is_absolute() and any(is_directory(root / base / folder) for base in ("", "images")):
        return
    for last in dict.fromkeys((name, UPLOADED.sub("", name))) if name else ():
        yield (*(part for part in folder.split("/") if part), last)
