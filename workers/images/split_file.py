"""Which image is in which split, as a small table, so that a figure that is claimed can be checked."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np

from workers.images.cache import open_prepared
from workers.settings import DataSettings

COLUMNS = ("file", "label", "split", "group", "weight")


def split_table(settings: DataSettings, cache: Path) -> bytes | None:
    """Return the table of a prepared data set as CSV; None where its images are no files of the user's.

    The rows of a split are in the order in which a network's predictions of it are recorded. Images that `data.images`
    leaves out are `unused`.

    Raises:
        DataNotFound: see `workers.images.cache.open_prepared`.
    """
    info, arrays = open_prepared(settings, cache)
    if arrays.train_details is None:
        return None
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    places, details = arrays.published.places(settings), arrays.train_details
    splits = {"train": places.train, "validation": places.validation}
    if places.test is not None:
        splits["test"] = places.test
    used = np.concatenate(list(splits.values()))
    splits["unused"] = np.setdiff1d(np.arange(len(arrays.train_labels)), used)
    parts = [(name, details.at(at), arrays.train_labels[at]) for name, at in splits.items()]
    if arrays.test_details is not None and arrays.test_labels is not None:
        parts.insert(2, ("test", arrays.test_details, arrays.test_labels))
    for split, of_split, labels in parts:
        for place, (name, label) in enumerate(zip(of_split.names, labels.tolist(), strict=True)):
            group = "" if of_split.groups is None else of_split.groups[place]
            weight = "" if of_split.weights is None else f"{of_split.weights[place]:g}"
            table.writerow((_text(name), info.class_names[label], split, _text(group), weight))
    return text.getvalue().encode()


def _text(name: str) -> str:
    """Return a name as UTF-8 can hold it: bytes that are none are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")
