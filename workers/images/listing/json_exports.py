"""Manifests that are JSON: Label Studio's JSON and JSON-MIN, COCO's, the VGG Image Annotator's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from space.documents import UnreadableDocument, read_json
from workers.images.listing.columns import EXTRAS, unused_columns
from workers.images.listing.rows import LABEL_COLUMNS, PATH_COLUMNS, Manifest, Row, no_columns, text_of, unknown_form
from workers.images.listing.via import via_json_rows
from workers.wording import one_line


def read_json_export(path: Path, group: str | None) -> Manifest:
    """Return the rows of a JSON export.

    Raises:
        DataNotFound: it isn't there, is no JSON or of no form that is known.
        InvalidSettings: `group` names a column, which JSON has none of.
    """
    if group is not None:
        raise no_columns(path, group)
    try:
        document = read_json(text_of(path))
    except UnreadableDocument as error:
        raise unknown_form(path, str(error)) from None
    readers: tuple[Callable[[Path, Any], Manifest], ...] = (_label_studio, _coco, _via)
    for reader in readers:
        try:
            manifest = reader(path, document)
        except (KeyError, TypeError, AttributeError, IndexError):  # the document isn't of this form
            continue
        if manifest.rows:
            return manifest
    raise unknown_form(path, "its JSON is none that is known here")


def _coco(path: Path, document: Any) -> Manifest:
    return Manifest(list(_coco_rows(document)), is_tools=True)


def _via(path: Path, document: Any) -> Manifest:
    return Manifest(list(via_json_rows(path, document)), is_tools=True)


def _label_studio(path: Path, document: Any) -> Manifest:
    """Return the rows of Label Studio's JSON (tasks with annotations) or JSON-MIN (tasks with their choice).

    Raises:
        DataNotFound: a key of the tasks' data is meant as a split, a group or a weight, and has another name.
    """
    if not isinstance(document, list):
        return Manifest([], is_tools=True)
    rows, others = [], list[dict[str, str]]()
    for number, task in enumerate(document, start=1):
        data = task.get("data", task)
        if data is task:
            file = _first(PATH_COLUMNS, task)
            label = next((key for key in LABEL_COLUMNS if key in task), None)
            value = () if label is None else task[label]
            chosen = list(value["choices"] if isinstance(value, dict) else [value] if isinstance(value, str) else value)
        else:
            file, label = _first((*PATH_COLUMNS, *data), data), None
            results = [one["result"] for one in task["annotations"] if not one.get("was_cancelled")]
            chosen = [choice for result in results for item in result for choice in item["value"].get("choices", ())]
        values = {key: _plain(value) for key, value in data.items() if key not in (file, label)}
        extras = {key.lower(): values.pop(key).strip() for key in list(values) if key.lower() in EXTRAS}
        others.append(values)
        split, group, weight = (extras.get(name, "") for name in EXTRAS)
        labels = tuple(dict.fromkeys(map(str, chosen)))
        rows.append(Row(str(data[file]), labels, f"image {number}", split, group or None, weight))
    taken = [name for name in EXTRAS if any(getattr(row, name) for row in rows)]
    names = list(dict.fromkeys(key for values in others for key in values))
    lines = [[values.get(name, "") for name in names] for values in others]
    return Manifest(rows, is_tools=True, notes=unused_columns(path, names, (), lines, taken, "key"))


def _plain(value: Any) -> str:
    """Return a value as a table's cell has it; "" for one that a cell can't hold."""
    return str(value) if isinstance(value, str | int | float) else ""


def _first(keys: Iterable[str], task: Mapping[str, Any]) -> str:
    """Return the first key that a task has.

    Raises:
        KeyError: it has none of them.
    """
    for key in keys:
        if key in task:
            return key
    raise KeyError


def _coco_rows(document: Any) -> Iterator[Row]:
    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    labels: dict[Any, dict[str, None]] = {image["id"]: {} for image in document["images"]}
    for annotation in document["annotations"]:
        labels[annotation["image_id"]][names[annotation["category_id"]]] = None
    for image in document["images"]:
        yield Row(str(image["file_name"]), tuple(labels[image["id"]]), f"image {one_line(str(image['id']))}")
