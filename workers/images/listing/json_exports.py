"""Manifests that are JSON: COCO's here, Label Studio's and the VGG Image Annotator's in files of their own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from space.documents import UnreadableDocument, read_json
from workers.images.listing.columns import EXTRAS, Record, manifest_of, plain
from workers.images.listing.label_studio import read_label_studio
from workers.images.listing.rows import BrokenRule, Manifest, called, no_columns, refuse, text_of, unknown_form
from workers.images.listing.via import read_via
from workers.wording import one_line

OF_COCO_IMAGES = (
    *(
        "id",
        "file_name",
        "width",
        "height",
        "license",
        "flickr_url",
        "coco_url",
        "date_captured",
        "extra",
        "attributes",
    ),
)
OF_COCO_ANNOTATIONS = (
    *("id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd", "ignore", "keypoints"),
    *("num_keypoints", "score", "attributes"),
    *("occluded", "rotation", "track_id", "keyframe"),  # what CVAT says of every one
)


def read_json_export(path: Path, group: str | None) -> Manifest:
    """Return the rows of a JSON export.

    Raises:
        DataNotFound: it isn't there, is no JSON or of no form that is known; or one of its records breaks a rule.
        InvalidSettings: `group` names a column, which JSON has none of.
    """
    if group is not None:
        raise no_columns(path, group)
    try:
        document = read_json(text_of(path))
    except UnreadableDocument as error:
        raise unknown_form(path, str(error)) from None
    readers: tuple[Callable[[Path, Any], Manifest | None], ...] = (read_label_studio, _read_coco, read_via)
    for reader in readers:
        manifest = reader(path, document)  # None: the document isn't of this form
        if manifest is not None:
            return manifest
    raise unknown_form(path, "its JSON is none that is known here")


def _read_coco(path: Path, document: Any) -> Manifest | None:
    """Return the rows of COCO's JSON; None if the document is none.

    Raises:
        DataNotFound: a record breaks a rule, or a key is meant as a split, a group or a weight and has another name.
    """
    if not isinstance(document, dict) or "images" not in document or not {"annotations", "categories"} & set(document):
        return None
    for name in ("images", "annotations", "categories"):
        if not isinstance(document.get(name), list):
            raise unknown_form(path, f"it is COCO's, but has no list of {name}")
    whose = called(path)
    names = _by_id(whose, document["categories"], "category", "name")
    images = _by_id(whose, document["images"], "image", "file_name")
    labels, said = _of_annotations(whose, document["annotations"], names, images)
    records = [
        Record(file, tuple(labels[image]), f"image {one_line(str(image))}", {**said[image], **values})
        for (image, file), values in zip(images.items(), map(_image_values, document["images"]), strict=True)
    ]
    return manifest_of(path, records, "key")


def _by_id(whose: str, records: Sequence[Any], noun: str, named: str) -> dict[Any, str]:
    """Return what each record is named, by its id."""
    odd = [
        f"{noun} {_id_or_place(record, place)}"
        for place, record in enumerate(records, start=1)
        if _id(record, "id") is None or not isinstance(record.get(named), str)
    ]
    rule = BrokenRule(f"have an id and a {named}", "correct it, or take it out", odd)
    refuse(whose, rule, f"{noun} record")
    counts = Counter(record["id"] for record in records)
    twice = [
        f"{noun} {one_line(str(record['id']))}, {one_line(record[named])}"
        for record in records
        if counts[record["id"]] > 1
    ]
    refuse(whose, BrokenRule("have an id of its own", "number them anew", twice), f"{noun} record")
    return {record["id"]: record[named] for record in records}


def _id(record: Any, key: str) -> int | float | str | None:
    """Return an id that a record has; None if it has none."""
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, int | float | str) else None


def _id_or_place(record: Any, place: int) -> str:
    number = _id(record, "id")
    return f"at place {place}" if number is None else one_line(str(number))


def _of_annotations(
    whose: str, annotations: Sequence[Any], names: Mapping[Any, str], images: Collection[Any]
) -> tuple[dict[Any, dict[str, None]], dict[Any, dict[str, str]]]:
    """Return the labels of each image, and what else its annotations say of it."""
    where = [f"annotation {_id_or_place(annotation, place)}" for place, annotation in enumerate(annotations, start=1)]
    for key, known, noun in (("image_id", images, "an image"), ("category_id", names, "a category")):
        ids = [_id(annotation, key) for annotation in annotations]
        odd = [f"{one}: {_shown(number)}" for one, number in zip(where, ids, strict=True) if number not in known]
        rule = BrokenRule(f"have the id of {noun} that there is as {key}", "correct it, or take it out", odd)
        refuse(whose, rule, "annotation")
    labels: dict[Any, dict[str, None]] = {image: {} for image in images}
    said: dict[Any, dict[str, str]] = {image: {} for image in images}
    torn = []
    for one, annotation in zip(where, annotations, strict=True):
        image = annotation["image_id"]
        labels[image][names[annotation["category_id"]]] = None
        for key, value in _values(annotation, OF_COCO_ANNOTATIONS).items():
            if said[image].setdefault(key, value) != value and key.lower() in EXTRAS:
                torn.append(f"{one}: {key} {one_line(value)} and {one_line(said[image][key])}")
    advice = "decide for one"
    refuse(whose, BrokenRule("say of its image what its other annotations say", advice, torn), "annotation")
    return labels, said


def _shown(number: int | float | str | None) -> str:
    return "none" if number is None else one_line(json.dumps(number, ensure_ascii=False))


def _image_values(record: Mapping[str, Any]) -> dict[str, str]:
    return _values(record, OF_COCO_IMAGES)


def _values(record: Mapping[str, Any], known: Collection[str]) -> dict[str, str]:
    """Return what a record says beside what COCO defines, its attributes included."""
    attributes = record.get("attributes")
    every = {**(attributes if isinstance(attributes, dict) else {}), **record}
    return plain({key: value for key, value in every.items() if key not in known})
