"""What the VGG Image Annotator (2) exports, as CSV and as JSON; the label is an attribute of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workers.images.listing.columns import EXTRAS, Record, manifest_of, meant_by, plain
from workers.images.listing.rows import LABEL_COLUMNS, BrokenRule, Manifest, called, refuse, unknown_form
from workers.wording import listed, one_line

OF_VIA = (
    *("filename", "size", "file_size", "file_attributes", "regions", "fileref", "base64_img_data"),
    *("region_count", "region_id", "region_shape_attributes", "region_attributes"),
)
NOUN = "file attribute"


class _File(NamedTuple):
    """A file, its attributes, and what else is said of it."""

    name: str
    where: str
    attributes: Mapping[str, Any]
    others: Mapping[str, Any]


def read_via_table(
    path: Path, header: Sequence[str], lines: list[tuple[int, list[str]]], at: Mapping[str, int]
) -> Manifest:
    """Return the rows of a CSV export; `lines` with their numbers, `at`: the place of each column, in lower case.

    Raises:
        DataNotFound: as `read_via`.
    """
    files = []
    for number, line in lines:
        try:
            attributes = json.loads(line[at["file_attributes"]] or "{}")
        except (ValueError, RecursionError):
            attributes = None
        if not isinstance(attributes, dict):
            raise unknown_form(path, f"line {number} has file_attributes that are no JSON object")
        others = dict(zip(header, line, strict=True))
        files.append(_File(line[at["filename"]].strip(), f"line {number}", attributes, others))
    return _manifest(path, files)


def read_via(path: Path, document: Any) -> Manifest | None:
    """Return the rows of a JSON export or of a project's file; None if the document is neither.

    Raises:
        DataNotFound: a file's record is broken; which attribute is the label isn't clear; or one is meant as a split,
            a group or a weight and has another name.
    """
    files = document.get("_via_img_metadata", document) if isinstance(document, dict) else None
    if not isinstance(files, dict) or not any(isinstance(file, dict) and "filename" in file for file in files.values()):
        return None
    records = [
        (f"image {number}", file if isinstance(file, dict) else {}) for number, file in enumerate(files.values(), 1)
    ]
    odd = [
        where
        for where, file in records
        if not isinstance(file.get("filename"), str) or not isinstance(file.get("file_attributes"), dict)
    ]
    rule = BrokenRule("have a filename and file_attributes", "correct it, or take it out", odd)
    refuse(called(path), rule, "file record")
    return _manifest(path, [_File(file["filename"], where, file["file_attributes"], file) for where, file in records])


def _manifest(path: Path, files: Sequence[_File]) -> Manifest:
    key = _label_key(path, [file.attributes for file in files])
    odd = [
        f"{file.where}, {one_line(file.name)}: {one_line(json.dumps(file.attributes[key]))}"
        for file in files
        if isinstance(file.attributes.get(key), list)
    ]
    rule = BrokenRule(f"have text or ticked boxes as {one_line(key)}", "correct it, or take it out", odd)
    refuse(called(path), rule, "file record")
    records = []
    for file in files:
        attributes = {name: _text(value) for name, value in file.attributes.items() if name != key}
        others = {name: value for name, value in file.others.items() if name.lower().removeprefix("#") not in OF_VIA}
        records.append(
            Record(file.name, _labels(file.attributes.get(key)), file.where, {**plain(others), **attributes})
        )
    return manifest_of(path, records, NOUN)


def _label_key(path: Path, attributes: Sequence[Mapping[str, Any]]) -> str:
    """Return which file attribute is the label: the only one that is nothing else, or the one that is called so."""
    keys = sorted(
        {key for values in attributes for key, value in values.items() if value and key.lower() not in EXTRAS}
    )
    usual = [key for key in keys if key.lower() in LABEL_COLUMNS]
    clear = [key for key in keys if meant_by(key) is None] or keys
    if len(clear) == 1 or len(usual) == 1:
        return (usual or clear)[0]
    raise unknown_form(
        path, f"which of its file attributes is the label isn't clear ({listed(clear) or 'it has none'}); call it label"
    )


def _labels(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):  # of boxes that were ticked
        return tuple(name for name, ticked in value.items() if ticked)
    return (str(value),) if value else ()


def _text(value: Any) -> str:
    return ", ".join(_labels(value)) if isinstance(value, dict) else plain({"": value})[""]
