"""A data set of files as it is listed: one entry an image, whatever form it was listed in, and the rules for all forms.

- A split that was made by hand is used as it is; one that nothing was put into is held out of the training images.
- Every class must be in the training split: what isn't shown there can't be learned.
- A group must not be on both sides of splits that were made by hand.
- A file is one image, however many names and links lead to it: it has one label, one split, one group and one weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from space.errors import DataNotFound
from workers.images.listing.walk import NAMED, Identity, LeftOut
from workers.images.source import Details, Labels
from workers.wording import counted, listed, one_line

Split = Literal["train", "validation", "test"]
SPLITS: dict[str, Split] = {  # how people call them
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
FEWEST_CLASSES = 2


class Entry(NamedTuple):
    """One image as it was listed."""

    name: str  # of its file, relative to the listing's root
    label: str
    stat: tuple[int, int]  # size in bytes, mtime in nanoseconds: whether it is decoded already
    split: Split | None = None
    group: str | None = None
    weight: float | None = None
    identity: Identity | None = None  # None: it is no file


@dataclass(frozen=True)
class ListedSplit:
    """The files of a split as it is published, (N,) of each."""

    labels: Labels
    details: Details
    stats: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Listing:
    """A data set's files; validation images that were chosen by hand are in `train`, and its details say which."""

    root: Path
    label: str  # for people
    class_names: tuple[str, ...]
    train: ListedSplit
    test: ListedSplit | None
    notes: tuple[str, ...]


def listing_of(
    root: Path, label: str, entries: Sequence[Entry], notes: Sequence[str], classes: Sequence[str] | None = None
) -> Listing:
    """Return the entries as a listing.

    Args:
        root: the folder that the entries' names are relative to.
        label: what people call the data set.
        entries: the images, in the order in which they are kept.
        notes: what is to be said of how they were found.
        classes: all labels in the order in which they are numbered; None: by name.

    Raises:
        DataNotFound: a rule above is broken.
    """
    parts: dict[Split, list[Entry]] = {"train": [], "validation": [], "test": []}
    left_out = LeftOut()
    for entry in _once_each(label, entries, left_out):
        parts[entry.split or "train"].append(entry)
    names = _class_names(label, parts)
    if classes is not None:
        with_images = set(names)
        names = tuple(name for name in classes if name in with_images)
    _check_groups(label, parts)
    index = {name: place for place, name in enumerate(names)}
    train = _listed(parts["train"] + parts["validation"], index)
    test = _listed(parts["test"], index) if parts["test"] else None
    said = [*_notes(parts), *notes, *left_out.notes()]
    return Listing(root, label, names, train, test, tuple(said))


def _once_each(label: str, entries: Sequence[Entry], left_out: LeftOut) -> list[Entry]:
    """Return one entry for each file, the first."""
    first: dict[Identity, Entry] = {}
    kept: list[Entry] = []
    broken: dict[str, list[str]] = {}
    for entry in entries:
        known = entry if entry.identity is None else first.setdefault(entry.identity, entry)
        if known is entry:
            kept.append(entry)
            continue
        left_out.add(entry.name, "further name of a file that is listed", "further names of files that are listed")
        for rule in ("label", "split", "group", "weight"):
            one, other = getattr(known, rule), getattr(entry, rule)
            if one != other:
                values = f"{one_line(_shown(one))} and {one_line(_shown(other))}"
                broken.setdefault(rule, []).append(f"{one_line(known.name)} and {one_line(entry.name)}: {values}")
    for rule, files in broken.items():
        raise DataNotFound(
            f"each file of {one_line(label)} must have one {rule}, whatever names and links lead to it, but "
            f"{counted(len(files), 'file')} {'has' if len(files) == 1 else 'have'} two ({'; '.join(files[:NAMED])}"
            f"{f'; and {len(files) - NAMED:,} more' if len(files) > NAMED else ''}); decide for one."
        )
    return kept


def _shown(value: str | float | None) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else value


def _class_names(label: str, parts: dict[Split, list[Entry]]) -> tuple[str, ...]:
    classes = {split: {entry.label for entry in part} for split, part in parts.items()}
    names = sorted(classes["train"])
    for split in ("validation", "test"):
        if unknown := sorted(classes[split] - classes["train"]):
            raise DataNotFound(
                f"every class of {one_line(label)} must have training images, but "
                f"{counted(len(unknown), 'class', 'classes')} of the {split} split ({listed(unknown)}) "
                f"{'has' if len(unknown) == 1 else 'have'} none; move some there, or correct the name."
            )
    if len(names) < FEWEST_CLASSES:
        only = f", {one_line(names[0])!r}" if names else ""
        raise DataNotFound(
            f"{one_line(label)} must hold images of at least 2 classes, but holds {len(names)}{only}; "
            "lay them out as PATH/<class>/<image>, or name them in a manifest."
        )
    return tuple(names)


def _check_groups(label: str, parts: dict[Split, list[Entry]]) -> None:
    groups = {split: {entry.group for entry in part if entry.group is not None} for split, part in parts.items()}
    for one, other in combinations(groups, 2):
        if both := sorted(groups[one] & groups[other]):
            raise DataNotFound(
                f"a group must be in one split, but {counted(len(both), 'group')} of {one_line(label)} "
                f"({listed(both)}) {'is' if len(both) == 1 else 'are'} in both {one} and {other}; "
                "move the images of a group to one side, or leave the split out to have it made."
            )


def _listed(entries: Sequence[Entry], index: dict[str, int]) -> ListedSplit:
    labels = np.fromiter((index[entry.label] for entry in entries), dtype=np.int64, count=len(entries))
    held = np.fromiter((entry.split == "validation" for entry in entries), dtype=np.bool_, count=len(entries))
    details = Details(
        names=tuple(entry.name for entry in entries),
        validation=held if held.any() else None,
        groups=_groups(entries),
        weights=_weights(entries),
    )
    return ListedSplit(labels, details, tuple(entry.stat for entry in entries))


def _groups(entries: Sequence[Entry]) -> tuple[str, ...] | None:
    """Return the group of each; an image that belongs to none is its own."""
    if all(entry.group is None for entry in entries):
        return None
    return tuple(f"/{entry.name}" if entry.group is None else entry.group for entry in entries)


def _weights(entries: Sequence[Entry]) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    if all(entry.weight is None for entry in entries):
        return None
    return np.array([1.0 if entry.weight is None else entry.weight for entry in entries], dtype=np.float64)


def _notes(parts: dict[Split, list[Entry]]) -> list[str]:
    """Return what is to be said of splits, groups and weights."""
    said = []
    by_hand: list[Split] = [split for split in parts if split != "train" and parts[split]]
    if by_hand:
        said.append(f"the {' and '.join(by_hand)} {'splits are' if len(by_hand) > 1 else 'split is'} as made by hand")
    everything = [entry for part in parts.values() for entry in part]
    groups = Counter(entry.group for entry in everything if entry.group is not None)
    if groups:
        said.append(
            f"{counted(len(groups), 'group')} of images, the largest of {max(groups.values()):,}; none is in two splits"
        )
    if any(entry.weight is not None for entry in everything):
        weights = [1.0 if entry.weight is None else entry.weight for entry in parts["train"]]
        least, most = min(weights), max(weights)
        said.append(
            f"images weigh {least:g} to {most:g} in training"
            if least < most
            else f"every image weighs {least:g} in training, so that weights change nothing"
        )
    return said
