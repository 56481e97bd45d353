"""What the VGG Image Annotator (2) exports, as CSV and as JSON; the label is an attribute of the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.images.listing.rows import LABEL_COLUMNS, Row, unknown_form
from workers.wording import listed


def via_table_rows(path: Path, lines: list[tuple[int, list[str]]], at: Mapping[str, int]) -> Iterator[Row]:
    """Yield the rows of a CSV export; `lines` with their numbers, `at`: the place of each column."""
    attributes = []
    for number, line in lines:
        try:
            attributes.append(json.loads(line[at["file_attributes"]] or "{}"))
        except ValueError:
            raise unknown_form(path, f"line {number} has file_attributes that are no JSON") from None
    key = _label_key(path, attributes)
    for (number, line), values in zip(lines, attributes, strict=True):
        yield Row(line[at["filename"]].strip(), _via_labels(values, key), f"line {number}")


def _label_key(path: Path, attributes: Sequence[Any]) -> str:
    """Return which file attribute is the label: the only one, or the one that is called so."""
    keys = sorted({key for values in attributes if isinstance(values, dict) for key, value in values.items() if value})
    called = [key for key in keys if key.lower() in LABEL_COLUMNS]
    if len(keys) == 1 or len(called) == 1:
        return str((called or keys)[0])
    raise unknown_form(
        path, f"which of its file attributes is the label isn't clear ({listed(keys) or 'it has none'}); call it label"
    )


def _via_labels(values: Any, key: str) -> tuple[str, ...]:
    value = values.get(key) if isinstance(values, dict) else None
    if isinstance(value, dict):  # of boxes that were ticked
        return tuple(name for name, ticked in value.items() if ticked)
    return (str(value),) if value else ()


def via_json_rows(path: Path, document: Any) -> Iterator[Row]:
    """Yield the rows of a JSON export or of a project's file."""
    files = list(document.get("_via_img_metadata", document).values())
    key = _label_key(path, [file["file_attributes"] for file in files])
    for number, file in enumerate(files, start=1):
        yield Row(str(file["filename"]), _via_labels(file["file_attributes"], key), f"image {number}")
