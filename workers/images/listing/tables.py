"""Manifests that are tables: a user's own, Label Studio's CSV, and Roboflow's, with a column for each class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from space.errors import InvalidSettings
from workers.images.listing.columns import PLURALS, misnamed, unused_columns
from workers.images.listing.label_studio import image_keys, label_key
from workers.images.listing.rows import LABEL_COLUMNS, PATH_COLUMNS, Manifest, Row, no_columns, text_of, unknown_form
from workers.images.listing.via import read_via_table
from workers.wording import listed, one_line


def read_table(path: Path, group: str | None) -> Manifest:
    """Return the rows of a CSV file; for `group` see `read_manifest`.

    Raises:
        DataNotFound: it isn't there, is damaged or has no columns that are known.
        InvalidSettings: it has no column `group`.
    """
    text = text_of(path)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise unknown_form(path, f"it is no CSV ({error})") from None
    header = [name.strip() for name in lines[0]] if lines else []
    plain = [name.lower().removeprefix("#") for name in header]
    lines_at = [(number, line) for number, line in enumerate(lines[1:], start=2) if any(line)]
    for number, line in lines_at:
        if len(line) != len(header):
            raise unknown_form(path, f"line {number} has {len(line)} columns, and its first line {len(header)}")
    at = {name: place for place, name in reversed(list(enumerate(plain)))}
    if "file_attributes" in at and "filename" in at:
        if group is not None:
            raise no_columns(path, group)
        return read_via_table(path, header, lines_at, at)
    file = next((name for name in PATH_COLUMNS if name in at), None)
    label = next((name for name in LABEL_COLUMNS if name in at), None)
    if "annotation_id" in at:  # Label Studio's, whose owner names the columns
        values = {name: [line[at[name]] for _, line in lines_at] for name in plain}
        file = next(iter(image_keys(values)), None)
        label = label_key(path, values, {file or ""}, "column")
    if file is None:
        raise unknown_form(path, f"its first line is: {one_line(first, 120) or 'empty'}")
    if group is not None and group.lower() not in at:
        raise InvalidSettings(
            f"data.group must be a column of the manifest, but is {group!r}, and {path.name} has: "
            f"{listed(header, most=12)}."
        )
    columns = {name: at.get(name) for name in ("split", "weight")} | {"group": at.get((group or "group").lower())}
    if label is None:
        return Manifest(list(_one_hot_rows(path, header, at[file], columns, lines_at)), is_tools=True)
    taken = {name: place for name, place in columns.items() if place is not None}
    used = {at[file], at[label], *taken.values()}
    notes = unused_columns(path, header, used, [line for _, line in lines_at], taken)
    rows = [_row(number, line, at[file], _choices(line[at[label]].strip()), columns) for number, line in lines_at]
    return Manifest(rows, is_tools="annotation_id" in at or label == "choice", notes=notes)


def _row(
    number: int, line: Sequence[str], file: int, labels: tuple[str, ...], columns: Mapping[str, int | None]
) -> Row:
    values = {name: "" if place is None else line[place].strip() for name, place in columns.items()}
    return Row(line[file].strip(), labels, f"line {number}", values["split"], values["group"] or None, values["weight"])


def _choices(label: str) -> tuple[str, ...]:
    """Return the labels in a cell: Label Studio writes several as {"choices": ["cat", "dog"]}."""
    if label.startswith("{"):
        try:
            choices = json.loads(label)["choices"]
        except (ValueError, KeyError, TypeError):
            return (label,)
        return tuple(map(str, choices)) if isinstance(choices, list) else (str(choices),)
    return (label,) if label else ()


def _one_hot_rows(
    path: Path,
    header: Sequence[str],
    file: int,
    columns: Mapping[str, int | None],
    lines: list[tuple[int, list[str]]],
) -> Iterator[Row]:
    """Yield the rows of a table with a column of 0 and 1 for each class; a split, a group and a weight are none."""
    classes = {
        place: name for place, name in enumerate(header) if place != file and place not in columns.values() and name
    }
    for name in classes.values():
        if name.lower() in PLURALS:
            raise misnamed(path, name, PLURALS[name.lower()])
    if len(classes) < 2:
        raise unknown_form(path, f"it has no column of labels, but {listed(header, most=12)}")
    for number, line in lines:
        cells = {place: line[place].strip() for place in classes}
        if other := [cell for cell in cells.values() if cell not in ("0", "1", "0.0", "1.0")]:
            raise unknown_form(
                path,
                f"it has no column of labels, but {listed(header, most=12)}, and line {number} holds "
                f"{one_line(other[0])!r} where a class's column has 0 or 1",
            )
        labels = tuple(classes[place] for place, cell in cells.items() if float(cell))
        yield _row(number, line, file, labels, columns)
