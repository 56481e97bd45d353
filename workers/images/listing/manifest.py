"""A manifest's rows as a listing: each file found, and every rule that a row can break, with all that break it.

Paths are relative to the manifest's folder. What annotation tools export may name files as on their server; then they
are looked for by their names below the manifest's folder.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from space.errors import DataNotFound
from workers.images.listing.annotations import read_manifest
from workers.images.listing.file_search import FileSearch, Match
from workers.images.listing.listing import SPLITS, Entry, Listing, Split, listing_of
from workers.images.listing.rows import BrokenRule, Row, called, refuse
from workers.images.listing.walk import LeftOut, find_images, is_directory, is_image_name
from workers.images.progress import progress
from workers.wording import agreeing, counted, has_controls, listed, one_line

LIKE_A_PATH = re.compile(r"^(\.{0,2}[/\\]|~[/\\]|[A-Za-z]:\\|\.{1,2}$)")
NO_SPLIT = ("", "unassigned", "none")


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
    whose = called(path)
    root = path if is_directory(path) else path.parent
    left_out, unreadable = LeftOut(), set[str]()
    rows, unlabelled = manifest.rows, list[Row]()
    if manifest.is_tools:
        rows, unlabelled = [row for row in rows if row.labels], [row for row in rows if not row.labels]
        for row in unlabelled:
            left_out.add(row.path, "image without a label", "images without a label")
        _check_labelled(whose, rows, unlabelled)
    check_rows(whose, rows)
    files = FileSearch(root, manifest.is_tools, unreadable)
    with progress("Looking for the files of", path.name, len(manifest.rows)) as advance:
        matches = files.matches([row.path for row in (*rows, *unlabelled)], advance)
    found, without_label = matches[: len(rows)], matches[len(rows) :]
    _check_found(whose, rows, found)
    entries = list(_entries(whose, root, rows, [match.name or "" for match in found], left_out))
    _note_unnamed(root, entries, without_label, left_out, unreadable)
    left_out.add_unreadable(unreadable)
    return listing_of(
        root,
        f"{one_line(path.resolve().name, 255)} (manifest)",
        entries,
        (*manifest.notes, *_notes_on(found), *left_out.notes()),
    )


# --- rules of rows ----------------------------------------------------------------------------------------------


def check_rows(whose: str, rows: Sequence[Row], noun: str = "row") -> None:
    """Raise DataNotFound if a row breaks a rule that doesn't depend on its file; `whose` and `noun` are for people."""
    if not rows:
        raise DataNotFound(f"{whose} must name images, but names none; add {noun}s.")
    rules = (
        BrokenRule("name a file", "write its path", [row.where for row in rows if not row.path]),
        BrokenRule("have a label", "write its class", [_shown(row) for row in rows if not "".join(row.labels).strip()]),
        BrokenRule(
            "have a label without control characters",
            "rename it",
            [f"{_shown(row)}: {one_line(label)}" for row in rows for label in row.labels if has_controls(label)],
        ),
        BrokenRule(
            "have one label",
            "decide for one; images of several classes at once are not what these networks are for",
            [f"{_shown(row)}: {listed(row.labels)}" for row in rows if len(set(row.labels)) > 1],
        ),
        BrokenRule(
            "have a class's name as label, not a path",
            "rename it, or exchange the columns",
            [f"{_shown(row)}: {one_line(row.labels[0])}" for row in rows if row.labels and _is_path(row.labels[0])],
        ),
        BrokenRule(
            "say train, validation or test as split, or nothing",
            "correct it",
            [f"{_shown(row)}: {one_line(row.split)}" for row in rows if not _is_split(row.split)],
        ),
        BrokenRule(
            "have a weight of 0 or more",
            "correct it",
            [f"{_shown(row)}: {one_line(row.weight)}" for row in rows if not _is_weight(row.weight)],
        ),
    )
    for rule in rules:
        refuse(whose, rule, noun)
    if all(row.weight and float(row.weight) == 0 for row in rows):
        raise DataNotFound(f"some image of {whose} must weigh more than 0, but none does; raise one.")


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


def _check_labelled(whose: str, rows: Sequence[Row], unlabelled: Sequence[Row]) -> None:
    if unlabelled and not rows:
        count = f"its {counted(len(unlabelled), 'image')} {agreeing(len(unlabelled), 'has', 'have')}"
        raise DataNotFound(f"images of {whose} must have labels, but {count} none; annotate them, and export again.")


# --- files ------------------------------------------------------------------------------------------------------


def _check_found(whose: str, rows: Sequence[Row], found: Sequence[Match]) -> None:
    """Raise DataNotFound if a row's file isn't there, or may be one of several."""
    pairs = list(zip(rows, found, strict=True))
    alike = [f"{_shown(row)}: {listed(match.alike, most=2)}" for row, match in pairs if match.alike]
    advice = "several images end as their paths do; write paths relative to the manifest's folder"
    refuse(whose, BrokenRule("name one file", advice, alike))
    missing = [_shown(row) for row, match in pairs if match.name is None]
    refuse(whose, BrokenRule("name a file that exists", "add the files, or take the rows out", missing))


def _notes_on(found: Sequence[Match]) -> Iterator[str]:
    """Yield how many files were found otherwise than by their whole paths."""
    by_ending = [match for match in found if not match.is_exact]
    for how, names in (
        ("the name", [match.name or "" for match in by_ending if match.shared == 1]),
        ("the end of the path", [match.name or "" for match in by_ending if match.shared > 1]),
    ):
        if names:
            yield f"{counted(len(names), 'file')} found by {how} alone ({listed(names)})"


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
    refuse(whose, BrokenRule("give a file the label that it has elsewhere", "decide for one label", labels))
    refuse(whose, BrokenRule("put a file into the split that it is in elsewhere", "decide for one split", splits))
    refuse(whose, BrokenRule("give a file the group and weight that it has elsewhere", "decide for one", others))
    for name, row in first.items():
        status = (root / name).stat()
        stat = status.st_size, status.st_mtime_ns
        identity = status.st_dev, status.st_ino
        yield Entry(name, row.labels[0], stat, _split_of(row), row.group, _weight_of(row), identity)


def _weight_of(row: Row) -> float | None:
    return float(row.weight) if row.weight else None


def _split_of(row: Row) -> Split | None:
    return SPLITS.get(row.split.lower())


def _note_unnamed(
    root: Path, entries: Sequence[Entry], without_label: Sequence[Match], left_out: LeftOut, unreadable: set[str]
) -> None:
    """Count the images that lie among those that are listed, and that no row names."""
    inside = [entry.name for entry in entries if not entry.name.startswith(("/", ".."))]
    if not inside:
        return
    below = os.path.commonpath([name.rpartition("/")[0] for name in inside])
    named = {entry.identity for entry in entries}
    for match in without_label:
        if match.name is not None:
            status = (root / match.name).stat()
            named.add((status.st_dev, status.st_ino))
    for image in find_images(root, below, LeftOut(), unreadable):
        if image.identity not in named:
            left_out.add(image.name, "image that the manifest doesn't name", "images that the manifest doesn't name")
