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

import re
from collections.abc import Iterator
from pathlib import Path

from space.errors import DataNotFound
from workers.images.listing.json_exports import read_json_export
from workers.images.listing.listing import SPLITS
from workers.images.listing.rows import Manifest, Row, no_columns, text_of, unknown_form
from workers.images.listing.tables import read_table
from workers.images.listing.walk import is_directory, is_image_name
from workers.wording import one_line

SYNSETS = "synsets.txt"
EXPORTS = ("_classes.csv", "_annotations.coco.json")  # what Roboflow puts into each split's folder
QUOTED = re.compile(r'^(?:"(?P<quoted>[^"]+)"|(?P<plain>.+?))(?P<labels>(?:\s+\d+)*)$')


def read_manifest(path: Path, group: str | None) -> Manifest:
    """Return the rows of a manifest: a file, or the folder of an export.

    Args:
        path: of the file or folder.
        group: the name of the column that says each image's group; None: "group", if there is one.

    Raises:
        DataNotFound: it is missing, damaged, or of no form that is known.
        InvalidSettings: it has no column of this name.
    """
    if is_directory(path):
        return _read_folder(path, group)
    if path.suffix.lower() == ".json":
        return read_json_export(path, group)
    if path.suffix.lower() == ".txt" and (path.parent / SYNSETS).is_file():
        if group is not None:
            raise no_columns(path, group)
        return Manifest(list(_imagenet_rows(path)), is_tools=True)
    return read_table(path, group)


def _read_folder(folder: Path, group: str | None) -> Manifest:
    exports = [folder / split / name for split in sorted(SPLITS) for name in EXPORTS]
    exports = [file for file in exports if file.is_file()]
    rows: list[Row] = []
    notes: dict[str, None] = {}
    for file in exports:
        split = file.parent.name
        found = read_manifest(file, group)
        notes |= dict.fromkeys(found.notes)
        rows += [
            row._replace(path=f"{split}/{row.path}", split=split, where=f"{row.where} of {split}") for row in found.rows
        ]
    subsets = sorted(set(folder.glob("*.txt")) - {folder / SYNSETS}) if (folder / SYNSETS).is_file() else []
    if subsets and not rows and group is not None:
        raise no_columns(folder, group)
    for file in subsets if not rows else ():
        rows += _imagenet_rows(file)
    if not exports and not subsets:
        raise DataNotFound(
            f"the manifest {str(folder)!r} is a folder without an export that is known here ({', '.join(EXPORTS)} in "
            f"train, valid and test; or {SYNSETS}); name the file, or write imagefolder:PATH for class folders."
        )
    return Manifest(rows, is_tools=True, notes=tuple(notes))


def _imagenet_rows(path: Path) -> Iterator[Row]:
    names = [line.strip() for line in text_of(path.parent / SYNSETS).split("\n") if line.strip()]
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        parts = QUOTED.match(line.strip())
        if parts is None:
            continue  # an empty line
        indices = [int(index) for index in parts["labels"].split()]
        if any(index >= len(names) for index in indices):
            raise unknown_form(path, f"line {number} names class {max(indices)}, and {SYNSETS} has {len(names)}")
        last = _word_after_image(parts["plain"] or "")
        if last and not indices:
            raise unknown_form(
                path,
                f"line {number} names class {one_line(last)!r}, and must number one of the {len(names)} of {SYNSETS}",
            )
        labels = tuple(names[index] for index in indices)
        split = path.stem if path.stem.lower() in SPLITS else ""
        yield Row(parts["quoted"] or parts["plain"], labels, f"line {number} of {path.name}", split)


def _word_after_image(text: str) -> str:
    """Return the last word of a line that follows an image's name; "" if none does."""
    before, _, last = text.rpartition(" ")
    return last if is_image_name(before) and not is_image_name(text) else ""
