"""The forms in which images and their labels are listed: a table of one's own, and what annotation tools export.

Each form becomes rows. Sources of the forms: the tools' documentation and exported files.

- path,label tables (CSV; comma, semicolon or tab), with split, group and weight where they have such columns
- Label Studio: CSV, JSON-MIN and JSON, with one choice an image
- VGG Image Annotator 2: CSV and JSON, with the label as a file attribute
- Roboflow: "multi-class classification" CSV, a column of 0 and 1 for each class
- COCO JSON, whose annotations give an image one category
- CVAT: ImageNet without images: synsets.txt, and one text file for each subset (with images it is class folders)
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from space.documents import UnreadableDocument, read_json
from space.errors import DataNotFound, InvalidSettings
from workers.images.listing.listing import SPLITS
from workers.wording import listed, one_line

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path", "file_path", "filepath", "img")
LABEL_COLUMNS = ("label", "class", "category", "choice", "class_name", "target")
SYNSETS = "synsets.txt"
EXPORTS = ("_classes.csv", "_annotations.coco.json")  # what Roboflow puts into each split's folder
NO_SPLIT = ("", "unassigned", "none")
QUOTED = re.compile(r'^(?:"(?P<quoted>[^"]+)"|(?P<plain>.+?))(?P<labels>(?:\s+\d+)*)$')


class Row(NamedTuple):
    """One line of a manifest, as it is written there; labels are those it gives the image, best one."""

    path: str
    labels: tuple[str, ...]
    where: str  # "line 3" or "image 7"
    split: str = ""
    group: str | None = None
    weight: str = ""


class Manifest(NamedTuple):
    """What a manifest holds. A tool's paths are often those of its own server: then only the files' names count."""

    rows: list[Row]
    is_tools: bool


def read_manifest(path: Path, group: str | None) -> Manifest:
    """Return the rows of a manifest: a file, or the folder of an export.

    Args:
        path: of the file or folder.
        group: the name of the column that says each image's group; None: "group", if there is one.

    Raises:
        DataNotFound: it is missing, damaged, or of no form that is known.
        InvalidSettings: it has no column of this name.
    """
    if path.is_dir():
        return _read_folder(path, group)
    if path.suffix.lower() == ".json":
        return Manifest(_read_json(path, group), is_tools=True)
    if path.suffix.lower() == ".txt" and (path.parent / SYNSETS).is_file():
        return Manifest(list(_imagenet_rows(path)), is_tools=True)
    return _read_csv(path, group)


def _read_folder(folder: Path, group: str | None) -> Manifest:
    exports = [folder / split / name for split in sorted(SPLITS) for name in EXPORTS]
    exports = [file for file in exports if file.is_file()]
    rows: list[Row] = []
    for file in exports:
        split = file.parent.name
        found = read_manifest(file, group).rows
        rows += [
            row._replace(path=f"{split}/{row.path}", split=split, where=f"{row.where} of {split}") for row in found
        ]
    subsets = sorted(set(folder.glob("*.txt")) - {folder / SYNSETS}) if (folder / SYNSETS).is_file() else []
    for file in subsets if not rows else ():
        rows += _imagenet_rows(file)
    if not exports and not subsets:
        raise DataNotFound(
            f"the manifest {str(folder)!r} is a folder without an export that is known here ({', '.join(EXPORTS)} in "
            f"train, valid and test; or {SYNSETS}); name the file, or write imagefolder:PATH for class folders."
        )
    return Manifest(rows, is_tools=True)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataNotFound(f"the manifest {str(path)!r} must be UTF-8, but isn't; save it as UTF-8.") from None
    except OSError as error:
        raise DataNotFound(
            f'the manifest {str(path)!r} can\'t be read ({error.strerror}): correct `dataset = "manifest:PATH"`'
        ) from None


def _unknown(path: Path, reason: str) -> DataNotFound:
    return DataNotFound(
        f"the manifest {str(path)!r} must have columns path and label (and may have split, group, weight), or be of an "
        f"annotation tool's form, but {reason}; see docs/data.md."
    )


# --- tables -----------------------------------------------------------------------------------------------------


def _read_csv(path: Path, group: str | None) -> Manifest:
    text = _text_of(path)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise _unknown(path, f"it is no CSV ({error})") from None
    header = [name.strip() for name in lines[0]] if lines else []
    plain = [name.lower().removeprefix("#") for name in header]
    lines_at = [(number, line) for number, line in enumerate(lines[1:], start=2) if any(line)]
    for number, line in lines_at:
        if len(line) != len(header):
            raise _unknown(path, f"line {number} has {len(line)} columns, and its first line {len(header)}")
    at = {name: place for place, name in reversed(list(enumerate(plain)))}
    if "file_attributes" in at and "filename" in at:
        return Manifest(list(_via_rows(path, lines_at, at)), is_tools=True)
    file = next((name for name in PATH_COLUMNS if name in at), None)
    label = next((name for name in LABEL_COLUMNS if name in at), None)
    if file is None:
        raise _unknown(path, f"its first line is: {one_line(first, 120) or 'empty'}")
    if label is None:
        return Manifest(list(_one_hot_rows(path, header, at[file], lines_at)), is_tools=True)
    if group is not None and group.lower() not in at:
        raise InvalidSettings(
            f"data.group must be a column of the manifest, but is {group!r}, and {path.name} has: "
            f"{listed(header, most=12)}."
        )
    columns = {name: at.get(name) for name in ("split", "weight")} | {"group": at.get((group or "group").lower())}
    rows = [_row(number, line, at[file], at[label], columns) for number, line in lines_at]
    return Manifest(rows, is_tools="annotation_id" in at or label == "choice")


def _row(number: int, line: Sequence[str], file: int, label: int, columns: Mapping[str, int | None]) -> Row:
    values = {name: "" if place is None else line[place].strip() for name, place in columns.items()}
    return Row(
        line[file].strip(),
        _choices(line[label].strip()),
        f"line {number}",
        values["split"],
        values["group"] or None,
        values["weight"],
    )


def _choices(label: str) -> tuple[str, ...]:
    """Return the labels in a cell: Label Studio writes several as {"choices": ["cat", "dog"]}."""
    if label.startswith("{"):
        try:
            choices = json.loads(label)["choices"]
        except (ValueError, KeyError, TypeError):
            return (label,)
        return tuple(map(str, choices)) if isinstance(choices, list) else (str(choices),)
    return (label,) if label else ()


def _one_hot_rows(path: Path, header: Sequence[str], file: int, lines: list[tuple[int, list[str]]]) -> Iterator[Row]:
    classes = {place: name for place, name in enumerate(header) if place != file}
    if len(classes) < 2:
        raise _unknown(path, f"it has no column of labels, but {listed(header, most=12)}")
    for number, line in lines:
        cells = {place: line[place].strip() for place in classes}
        if other := [cell for cell in cells.values() if cell not in ("0", "1", "0.0", "1.0")]:
            raise _unknown(path, f"line {number} holds {one_line(other[0])!r} where a class's column has 0 or 1")
        labels = tuple(classes[place] for place, cell in cells.items() if float(cell))
        yield Row(line[file].strip(), labels, f"line {number}")


def _via_rows(path: Path, lines: list[tuple[int, list[str]]], at: Mapping[str, int]) -> Iterator[Row]:
    attributes = []
    for number, line in lines:
        try:
            attributes.append(json.loads(line[at["file_attributes"]] or "{}"))
        except ValueError:
            raise _unknown(path, f"line {number} has file_attributes that are no JSON") from None
    key = _label_key(path, attributes)
    for (number, line), values in zip(lines, attributes, strict=True):
        yield Row(line[at["filename"]].strip(), _via_labels(values, key), f"line {number}")


def _label_key(path: Path, attributes: Sequence[Any]) -> str:
    """Return which file attribute is the label: the only one, or the one that is called so."""
    keys = sorted({key for values in attributes if isinstance(values, dict) for key, value in values.items() if value})
    called = [key for key in keys if key.lower() in LABEL_COLUMNS]
    if len(keys) == 1 or len(called) == 1:
        return str((called or keys)[0])
    raise _unknown(
        path, f"which of its file attributes is the label isn't clear ({listed(keys) or 'it has none'}); call it label"
    )


def _via_labels(values: Any, key: str) -> tuple[str, ...]:
    value = values.get(key) if isinstance(values, dict) else None
    if isinstance(value, dict):  # of boxes that were ticked
        return tuple(name for name, ticked in value.items() if ticked)
    return (str(value),) if value else ()


# --- JSON -------------------------------------------------------------------------------------------------------


def _read_json(path: Path, group: str | None) -> list[Row]:
    if group is not None:
        raise InvalidSettings(f"data.group must be a column of a CSV manifest, but {path.name} is JSON; leave it out.")
    try:
        document = read_json(_text_of(path))
    except UnreadableDocument as error:
        raise _unknown(path, str(error)) from None
    readers: tuple[Callable[[Path, Any], Iterator[Row]], ...] = (_label_studio_rows, _coco_rows, _via_json_rows)
    for reader in readers:
        try:
            rows = list(reader(path, document))
        except (KeyError, TypeError, AttributeError, IndexError):  # the document isn't of this form
            continue
        if rows:
            return rows
    raise _unknown(path, "its JSON is none that is known here")


def _label_studio_rows(path: Path, document: Any) -> Iterator[Row]:
    """Yield the rows of Label Studio's JSON (tasks with annotations) or JSON-MIN (tasks with their choice)."""
    if not isinstance(document, list):
        return
    for number, task in enumerate(document, start=1):
        if "data" in task:
            file = next(task["data"][key] for key in (*PATH_COLUMNS, *task["data"]) if key in task["data"])
            results = [one["result"] for one in task["annotations"] if not one.get("was_cancelled")]
            chosen = [choice for result in results for item in result for choice in item["value"].get("choices", ())]
        else:
            file = next(task[key] for key in PATH_COLUMNS if key in task)
            value = next((task[key] for key in LABEL_COLUMNS if key in task), ())
            chosen = list(value["choices"] if isinstance(value, dict) else [value] if isinstance(value, str) else value)
        yield Row(str(file), tuple(dict.fromkeys(map(str, chosen))), f"image {number}")


def _coco_rows(path: Path, document: Any) -> Iterator[Row]:
    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    labels: dict[Any, dict[str, None]] = {image["id"]: {} for image in document["images"]}
    for annotation in document["annotations"]:
        labels[annotation["image_id"]][names[annotation["category_id"]]] = None
    for image in document["images"]:
        yield Row(str(image["file_name"]), tuple(labels[image["id"]]), f"image {one_line(str(image['id']))}")


def _via_json_rows(path: Path, document: Any) -> Iterator[Row]:
    files = list(document.get("_via_img_metadata", document).values())
    key = _label_key(path, [file["file_attributes"] for file in files])
    for number, file in enumerate(files, start=1):
        yield Row(str(file["filename"]), _via_labels(file["file_attributes"], key), f"image {number}")


# --- text -------------------------------------------------------------------------------------------------------


def _imagenet_rows(path: Path) -> Iterator[Row]:
    names = [line.strip() for line in _text_of(path.parent / SYNSETS).splitlines() if line.strip()]
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        parts = QUOTED.match(line.strip())
        if parts is None:
            continue  # an empty line
        indices = [int(index) for index in parts["labels"].split()]
        if any(index >= len(names) for index in indices):
            raise _unknown(path, f"line {number} names class {max(indices)}, and {SYNSETS} has {len(names)}")
        labels = tuple(names[index] for index in indices)
        split = path.stem if path.stem.lower() in SPLITS else ""
        yield Row(parts["quoted"] or parts["plain"], labels, f"line {number} of {path.name}", split)
