"""Manifests that are JSON: Label Studio's JSON and JSON-MIN, COCO's, the VGG Image Annotator's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from space.documents import UnreadableDocument, read_json
from workers.images.listing.rows import LABEL_COLUMNS, PATH_COLUMNS, Row, no_columns, text_of, unknown_form
from workers.images.listing.via import via_json_rows
from workers.wording import one_line


def read_json_export(path: Path, group: str | None) -> list[Row]:
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
    readers: tuple[Callable[[Path, Any], Iterator[Row]], ...] = (_label_studio_rows, _coco_rows, via_json_rows)
    for reader in readers:
        try:
            rows = list(reader(path, document))
        except (KeyError, TypeError, AttributeError, IndexError):  # the document isn't of this form
            continue
        if rows:
            return rows
    raise unknown_form(path, "its JSON is none that is known here")


def _label_studio_rows(path: Path, document: Any) -> Iterator[Row]:
    """Yield the rows of Label Studio's JSON (tasks with annotations) or JSON-MIN (tasks with their choice)."""
    if not isinstance(document, list):
        return
    for number, task in enumerate(document, start=1):
        if "data" in task:
            file = task["data"][_first((*PATH_COLUMNS, *task["data"]), task["data"])]
            results = [one["result"] for one in task["annotations"] if not one.get("was_cancelled")]
            chosen = [choice for result in results for item in result for choice in item["value"].get("choices", ())]
        else:
            file = task[_first(PATH_COLUMNS, task)]
            label = next((key for key in LABEL_COLUMNS if key in task), None)
            value = () if label is None else task[label]
            chosen = list(value["choices"] if isinstance(value, dict) else [value] if isinstance(value, str) else value)
        yield Row(str(file), tuple(dict.fromkeys(map(str, chosen))), f"image {number}")


def _first(keys: Iterable[str], task: Mapping[str, Any]) -> str:
    """Return the first key that a task has.

    Raises:
        KeyError: it has none of them.
    """
    for key in keys:
        if key in task:
            return key
    raise KeyError


def _coco_rows(path: Path, document: Any) -> Iterator[Row]:
    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    labels: dict[Any, dict[str, None]] = {image["id"]: {} for image in document["images"]}
    for annotation in document["annotations"]:
        labels[annotation["image_id"]][names[annotation["category_id"]]] = None
    for image in document["images"]:
        yield Row(str(image["file_name"]), tuple(labels[image["id"]]), f"image {one_line(str(image['id']))}")
