"""Which image is in which split, as a small table, so that a figure that is claimed can be checked."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workers.images.cache import FoundImages, open_prepared
from workers.images.near_duplicates import Hashes, hashes_of
from workers.images.source import BLOCK, Details, Images, Labels
from workers.settings import DataSettings

_PICTURE = re.compile("[0-9a-f]{16}")


class SplitRow(NamedTuple):
    """One image of the table."""

    file: str  # relative to the data set's folder
    label: str
    split: str  # train, validation, test or unused
    group: str
    weight: str
    picture: str = ""  # a hash that is alike at every size (`workers.images.near_duplicates`), in hexadecimal


def split_table(settings: DataSettings, cache: Path) -> bytes | None:
    """Return the table of a prepared data set as CSV; None where its images are no files of the user's.

    The rows of a split are in the order in which a network's predictions of it are recorded. Images that `data.images`
    leaves out are `unused`.

    Raises:
        DataNotFound: see `workers.images.cache.open_prepared`.
    """
    info, arrays = open_prepared(settings, cache)
    images = FoundImages("", info.class_names, arrays.published, (arrays.train_images, arrays.test_images))
    rows = split_rows(settings, images)
    if rows is None:
        return None
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(SplitRow._fields)
    table.writerows(rows)
    return text.getvalue().encode()


def read_split_rows(content: bytes) -> list[SplitRow] | None:
    """Return the rows of a table; None where it is none. One of an earlier version has no pictures."""
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode()), restval=""))
        known = [{"picture": "", **{name: row[name] for name in row.keys() & set(SplitRow._fields)}} for row in rows]
        read = [SplitRow(**row) for row in known]
        return [row if _PICTURE.fullmatch(row.picture) else row._replace(picture="") for row in read]
    except (ValueError, TypeError, csv.Error):
        return None


def split_rows(settings: DataSettings, images: FoundImages) -> list[SplitRow] | None:
    """Return the rows of a data set's images; None where they are no files of the user's."""
    published, details = images.published, images.published.details
    if details is None:
        return None
    places = published.places(settings)
    splits = {"train": places.train, "validation": places.validation}
    if places.test is not None:
        splits["test"] = places.test
    used = np.concatenate(list(splits.values()))
    splits["unused"] = np.setdiff1d(np.arange(len(published.labels)), used)
    pictures, of_test = (None, None) if images.arrays is None else map(_pictures, images.arrays)
    parts = [
        (name, details.at(at), published.labels[at], None if pictures is None else pictures[at])
        for name, at in splits.items()
    ]
    if published.test_details is not None and published.test_labels is not None:
        parts.insert(2, ("test", published.test_details, published.test_labels, of_test))
    return [row for part in parts for row in _rows_of(*part, images.class_names)]


def _rows_of(
    split: str, details: Details, labels: Labels, pictures: Hashes | None, class_names: Sequence[str]
) -> Iterator[SplitRow]:
    for place, (name, label) in enumerate(zip(details.names, labels.tolist(), strict=True)):
        group = "" if details.groups is None else details.groups[place]
        weight = "" if details.weights is None else f"{details.weights[place]:g}"
        picture = "" if pictures is None else f"{int(pictures[place]):016x}"
        yield SplitRow(_text(name), class_names[label], split, _text(group), weight, picture)


def _pictures(images: Images | None) -> Hashes | None:
    if images is None:
        return None
    blocks = [hashes_of(images[at : at + BLOCK]) for at in range(0, len(images), BLOCK)]
    return np.concatenate([np.empty(0, dtype=np.uint64), *blocks])


def _text(name: str) -> str:
    """Return a name as UTF-8 can hold it: bytes that are none are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")
