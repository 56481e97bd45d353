"""Label Studio's exports: JSON (tasks with annotations) and JSON-MIN (tasks with their choice), and its CSV's columns.

Which key of a task names the image, and in JSON-MIN and CSV which is the label, a project's owner decides.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.images.listing.columns import EXTRAS, OF_LABEL_STUDIO, Record, manifest_of, meant_by, plain
from workers.images.listing.file_search import looks_like_an_image
from workers.images.listing.rows import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    BrokenRule,
    Manifest,
    called,
    refuse,
    unknown_form,
)
from workers.wording import listed, one_line

Values = Mapping[str, Sequence[Any]]  # of each key or column, those there are


def read_label_studio(path: Path, document: Any) -> Manifest | None:
    """Return the rows of a JSON or JSON-MIN export; None where the document is no list of tasks.

    Raises:
        DataNotFound: a task breaks a rule, a key is meant as a split, a group or a weight and has another name, or
            which key is the image's or the label isn't clear.
    """
    if not isinstance(document, list) or not any(isinstance(task, dict) for task in document):
        return None
    odd = [f"task {number}" for number, task in enumerate(document, start=1) if not isinstance(task, dict)]
    refuse(called(path), BrokenRule("be an object in braces", "correct it, or take it out", odd), "task")
    if any(isinstance(task.get("data"), dict) for task in document):
        return manifest_of(path, list(_annotated(path, document)), "key")
    return manifest_of(path, list(_with_choice(path, document)), "key")


def image_keys(values: Values) -> list[str]:
    """Return the keys whose values are images' paths, the one that counts first; those with a usual name, or the best.

    Where no value looks like an image's path, these are the keys with a usual name.
    """
    keys = [key for key in values if key.lower() not in EXTRAS]
    usual = sorted(
        (key for key in keys if key.lower() in PATH_COLUMNS), key=lambda key: PATH_COLUMNS.index(key.lower())
    )
    looks = {key: sum(isinstance(one, str) and looks_like_an_image(one.strip()) for one in values[key]) for key in keys}
    best = max(keys, key=lambda key: looks[key], default="")
    return [key for key in usual if looks[key]] or ([best] if looks.get(best) else usual)


def label_key(path: Path, values: Values, images: Collection[str], noun: str) -> str:
    """Return the key that is the label: one that is called so, or the only one that is nothing else.

    Raises:
        DataNotFound: there are several, or none.
    """
    usual = [key for key in values if key.lower() in LABEL_COLUMNS]
    if usual:
        return min(usual, key=lambda key: LABEL_COLUMNS.index(key.lower()))
    others = [key for key in values if key not in images and key.lower() not in (*EXTRAS, *OF_LABEL_STUDIO)]
    chosen = [key for key in others if any(_is_choice(value) for value in values[key])]
    clear = chosen or [key for key in others if meant_by(key) is None] or others
    if len(clear) == 1:
        return clear[0]
    raise unknown_form(
        path, f"which of its {noun}s is the label isn't clear ({listed(clear, most=6) or 'it has none'}); call it label"
    )


def _is_choice(value: Any) -> bool:
    return value.startswith('{"choices"') if isinstance(value, str) else isinstance(value, dict) and "choices" in value


def _values_of(tasks: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for task in tasks:
        for key, value in task.items():
            values.setdefault(key, []).append(value)
    return values


def _image_keys_of(path: Path, values: Values) -> list[str]:
    keys = image_keys(values)
    if not keys:
        names = listed(list(values), most=6) or "it has none"
        raise unknown_form(path, f"none of its keys is known to name an image ({names}); call it image")
    return keys


def _images(path: Path, tasks: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Return the key of each task that names its image."""
    found = [next((key for key in keys if isinstance(task.get(key), str)), "") for task in tasks]
    odd = [f"task {number}" for number, key in enumerate(found, start=1) if not key]
    refuse(called(path), BrokenRule("name its image", f"write its path as {one_line(keys[0])}", odd), "task")
    return found


def _annotated(path: Path, tasks: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
    """Yield the images of tasks with annotations; one without any has no label."""
    odd = [f"task {number}" for number, task in enumerate(tasks, start=1) if not isinstance(task.get("data"), dict)]
    refuse(called(path), BrokenRule("have its data in braces", "correct it, or take it out", odd), "task")
    keys = _images(path, [task["data"] for task in tasks], _image_keys_of(path, _values_of([t["data"] for t in tasks])))
    labels = [_annotations_labels(task.get("annotations")) for task in tasks]
    where = [
        f"task {number}, {one_line(task['data'][key])}"
        for number, (task, key) in enumerate(zip(tasks, keys, strict=True), 1)
    ]
    odd = [one for one, chosen in zip(where, labels, strict=True) if chosen is None]
    rule = BrokenRule("have annotations with results, as in a full export", "export it again, or take it out", odd)
    refuse(called(path), rule, "task")
    for number, (task, key, chosen) in enumerate(zip(tasks, keys, labels, strict=True), start=1):
        meta = task.get("meta")
        own = {name: value for name, value in task.items() if meant_by(name) or name.lower() in EXTRAS}
        others = {**own, **(meta if isinstance(meta, dict) else {}), **task["data"]}
        del others[key]
        yield Record(task["data"][key], chosen or (), f"image {number}", plain(others))


def _annotations_labels(annotations: Any) -> tuple[str, ...] | None:
    """Return what was chosen in a task's annotations, None if they have another form.

    What is no choice, such as a box or a relation, is passed over.
    """
    chosen: dict[str, None] = {}
    if not isinstance(annotations, list | None):
        return None
    for annotation in annotations or ():
        results = annotation.get("result") if isinstance(annotation, dict) else None
        if not isinstance(results, list) or not all(isinstance(item, dict) for item in results):
            return None
        for item in results if not annotation.get("was_cancelled") else ():
            value = item.get("value")
            labels = _labels_of(value["choices"]) if isinstance(value, dict) and "choices" in value else ()
            if labels is None:
                return None
            chosen |= dict.fromkeys(labels)
    return tuple(chosen)


def _with_choice(path: Path, tasks: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
    """Yield the images of tasks that are one with their choice."""
    values = _values_of(tasks)
    keys = _image_keys_of(path, values)
    label = label_key(path, values, keys, "key")
    images = _images(path, tasks, keys)
    labels = [_labels_of(task.get(label)) for task in tasks]
    odd = [
        f"task {number}, {one_line(task[key])}: {one_line(json.dumps(task[label]))}"
        for number, (task, key, chosen) in enumerate(zip(tasks, images, labels, strict=True), start=1)
        if chosen is None
    ]
    refuse(called(path), BrokenRule(f"have text as {one_line(label)}", "correct it, or take it out", odd), "task")
    for number, (task, key, chosen) in enumerate(zip(tasks, images, labels, strict=True), start=1):
        others = {name: value for name, value in task.items() if name not in (key, label)}
        yield Record(task[key], chosen or (), f"image {number}", plain(others))


def _labels_of(value: Any) -> tuple[str, ...] | None:
    """Return the labels that a value says: text, several of it, or {"choices": …}; None if it is something else."""
    if isinstance(value, dict):
        value = value.get("choices", {})
    values = value if isinstance(value, list) else [value]
    if not all(one is None or isinstance(one, str | int | float) for one in values):
        return None
    return tuple(dict.fromkeys(str(one) for one in values if one is not None and one != ""))
