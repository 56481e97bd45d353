"""Columns of a manifest (in JSON, keys) that nothing reads: one meant as a split, a group or a weight is refused."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from space.errors import DataNotFound
from workers.images.listing.listing import SPLITS
from workers.images.listing.rows import Manifest, Row
from workers.wording import agreeing, counted, listed, one_line

EXTRAS = ("split", "group", "weight")
PLURALS = {f"{name}s": name for name in EXTRAS}
SYNONYMS = {
    **PLURALS,
    **dict.fromkeys(("set", "subset", "partition", "data_split", "dataset_split"), "split"),
    **dict.fromkeys(("group_id", "groupid", "group_name"), "group"),
    **dict.fromkeys(("sample_weight", "image_weight", "loss_weight"), "weight"),
}
OTHER_WORDS = ("height",)  # near "weight", and none of it
OF_LABEL_STUDIO = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time")
NEAR = 0.8  # difflib's measure: one letter is wrong, lacks or is too many, or two have changed places


class Record(NamedTuple):
    """One image of an export that is no table, and all else that is said of it, by its keys."""

    path: str
    labels: tuple[str, ...]
    where: str
    values: Mapping[str, str]


def manifest_of(path: Path, records: Sequence[Record], noun: str) -> Manifest:
    """Return records as rows: their split, group and weight are read, and what isn't used is said.

    Args:
        path: the manifest's.
        records: the images'.
        noun: what the manifest's form calls a key.

    Raises:
        DataNotFound: as `unused_columns`.
    """
    rows, others = [], list[dict[str, str]]()
    for record in records:
        values = dict(record.values)
        extras = {key.lower(): values.pop(key).strip() for key in record.values if key.lower() in EXTRAS}
        split, group, weight = (extras.get(name, "") for name in EXTRAS)
        rows.append(Row(record.path, record.labels, record.where, split, group or None, weight))
        others.append(values)
    taken = [name for name in EXTRAS if any(getattr(row, name) for row in rows)]
    names = list(dict.fromkeys(key for values in others for key in values))
    lines = [[values.get(name, "") for name in names] for values in others]
    return Manifest(rows, is_tools=True, notes=unused_columns(path, names, (), lines, taken, noun))


def plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as a table's cells have them; "" for what a cell can't hold."""
    return {key: str(value) if isinstance(value, str | int | float) else "" for key, value in values.items()}


def unused_columns(
    path: Path,
    header: Sequence[str],
    used: Collection[int],
    lines: Sequence[Sequence[str]],
    taken: Collection[str],
    noun: str = "column",
) -> tuple[str, ...]:
    """Return what is to be said of the columns that aren't used.

    Args:
        path: the manifest's.
        header: the columns' names.
        used: the places of those that are used.
        lines: all others, with as many values as the header.
        taken: those of `EXTRAS` that a column says.
        noun: what the manifest's form calls a column.

    Raises:
        DataNotFound: a column is meant as one of `EXTRAS` that no column says, by its name or by what it holds.
    """
    others = {place: name for place, name in enumerate(header) if place not in used and name}
    for place, name in others.items():
        meant = meant_by(name)
        if meant is None and "split" not in taken and _holds_splits([line[place] for line in lines]):
            meant = "split"
        if meant is not None and meant not in taken:
            raise misnamed(path, name, meant, noun)
    names = [name for name in others.values() if name.lower() not in OF_LABEL_STUDIO]
    if not names:
        return ()
    verb = agreeing(len(names), "is", "are")
    return (f"{counted(len(names), noun)} of {one_line(path.name)} {verb} not used ({listed(names)})",)


def meant_by(name: str, known: Mapping[str, str] = SYNONYMS) -> str | None:
    """Return which of `EXTRAS` a column's name is meant as, None if none."""
    name = name.lower()
    if name in known or name in OTHER_WORDS:
        return known.get(name)
    near = difflib.get_close_matches(name, EXTRAS, n=1, cutoff=NEAR)
    return near[0] if near else None


def misnamed(path: Path, name: str, meant: str, noun: str = "column") -> DataNotFound:
    """Return the error that a column, or what the form calls so, has another name than it must have."""
    advice = f' or set `data.group = "{one_line(name)}"`,' if meant == "group" and noun == "column" else ""
    return DataNotFound(
        f"the {noun} of each image's {meant} in the manifest {str(path)!r} must be called {meant}, but one is called "
        f"{one_line(name)!r}, did you mean {meant!r}? Rename it,{advice} or, if it is something else, give it a name "
        "that isn't alike."
    )


def _holds_splits(values: Sequence[str]) -> bool:
    """Whether what a column holds are names of splits, at least two of them."""
    found = {value.strip().lower() for value in values} - {""}
    return found <= set(SPLITS) and len({SPLITS[value] for value in found}) > 1
