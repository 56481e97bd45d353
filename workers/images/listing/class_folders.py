"""Images laid out as PATH/<class>/.../<image>, or the same below PATH/train, PATH/val and PATH/test.

- A class's folders are read to their ends; which class an image is of, the first folder says.
- A folder `train` that holds images itself, beside folders that are no split's, is a class.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from space.errors import DataNotFound, InvalidSettings
from workers.images.listing.listing import FEWEST_CLASSES, SPLITS, Entry, Listing, Split, listing_of
from workers.images.listing.walk import (
    LeftOut,
    find_images,
    is_directory,
    is_folder,
    is_hidden,
    is_image,
    is_image_name,
    reading,
)
from workers.wording import counted, has_controls, listed, one_line

LONGEST_NAME = 255  # letters; no file system has longer ones
MOST_BESIDE = 12  # folders that are named in a note
BY_FOLDER = "folder"  # data.group: each folder in a class's folder is a group, with all folders in it


def list_class_folders(root: Path, group: str | None = None) -> Listing:
    """Return the images of a folder of class folders.

    Args:
        root: the folder.
        group: None, or `BY_FOLDER`: images in folders of one name in their classes' folders are one group.

    Raises:
        DataNotFound: it is missing, can't be read, isn't laid out in class folders, or breaks a rule of all listings.
        InvalidSettings: `group` is something else.
    """
    if group not in (None, BY_FOLDER):
        raise InvalidSettings(
            f'data.group must be "{BY_FOLDER}" for an image folder, but is {group!r}; a column is a manifest\'s.'
        )
    if not is_directory(root):
        raise DataNotFound(
            f'the image folder {one_line(str(root), 300)!r} doesn\'t exist: correct `dataset = "imagefolder:PATH"`'
        )
    left_out, unreadable = LeftOut(), set[str]()
    folders = _folders_in(root, left_out)
    _suggest_inner(root, folders)
    entries: list[Entry] = []
    splits = _splits_among(root, folders)
    notes: tuple[str, ...] = ()
    if not splits:
        entries += _entries(root, "", folders, None, left_out)
        notes = _doubts(entries) if group is None else ()
    elif beside := [name for name in folders if name not in splits]:
        count = counted(len(beside), "folder")
        notes = (f"left out: {count} beside the splits' folders ({listed(beside, most=MOST_BESIDE)})",)
    for name in folders if splits else ():
        if name not in splits:
            for image in find_images(root, name, LeftOut(), unreadable):
                left_out.add(image.name, "image beside the splits' folders", "images beside the splits' folders")
            continue
        entries += _entries(root, name, _folders_in(root / name, left_out, name), splits[name], left_out)
    if group == BY_FOLDER:
        entries = [entry._replace(group=_folder_of(entry.name, depth=2 if splits else 1)) for entry in entries]
    left_out.add_unreadable(unreadable)
    return listing_of(
        root, f"{one_line(root.resolve().name, LONGEST_NAME)} (image folder)", entries, (*notes, *left_out.notes())
    )


def _suggest_inner(root: Path, folders: Sequence[str]) -> None:
    """Raise DataNotFound where the only folder is no class, but holds the data set, as archives often have it."""
    if len(folders) != 1 or folders[0].lower() in SPLITS:
        return
    inside = _folders_in(root / folders[0], LeftOut())
    if len(inside) >= FEWEST_CLASSES or any(name.lower() in SPLITS for name in inside):
        inner = one_line(str(root / folders[0]), 300)
        raise DataNotFound(
            f"{str(root)!r} must hold images of at least 2 classes, but holds the folder {one_line(folders[0])!r} "
            f'alone, and that {listed(inside)}; did you mean `dataset = "imagefolder:{inner}"`?'
        )


def _doubts(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return what speaks against the first folders being the classes: that all of them hold the same folders."""
    inside: dict[str, set[str]] = {}
    for entry in entries:
        folder = _folder_of(entry.name, depth=1)
        inside.setdefault(entry.label, set()).add(folder or "")
    same = next(iter(inside.values()), set())
    if len(same) < FEWEST_CLASSES or "" in same or any(folders != same for folders in inside.values()):
        return ()
    return (
        f"each class's folder ({listed(sorted(inside))}) holds the same folders ({listed(sorted(same))}); if those are "
        "the classes, call the outer ones train, val and test; if they are patients or cameras, set data.group",
    )


def _splits_among(root: Path, folders: Sequence[str]) -> dict[str, Split]:
    """Return which folders are splits; none where `train` is a class that is called so."""
    splits = {name: SPLITS[name.lower()] for name in folders if name.lower() in SPLITS}
    trains = [name for name, split in splits.items() if split == "train"]
    if not trains:
        for name in splits:
            if not _holds_images(root / name) and _folders_in(root / name, LeftOut()):
                raise DataNotFound(
                    f"{str(root)!r} has a folder {one_line(name)!r} of class folders, so it needs a folder 'train' of "
                    "them too; put the other class folders there."
                )
        return {}
    only_splits = set(folders) <= {"train", *(name for name in splits if splits[name] != "train")}
    if not only_splits and any(_holds_images(root / name) for name in trains):
        return {}
    _ask_about_train(root, folders, splits)
    for split in ("train", "validation", "test"):
        twice = [name for name in folders if splits.get(name) == split]
        if len(twice) > 1:
            raise DataNotFound(
                f"{str(root)!r} must have one folder for each split, but {listed(twice)} are all the {split} split; "
                "put their images into one of them."
            )
    return splits


def _ask_about_train(root: Path, folders: Sequence[str], splits: dict[str, Split]) -> None:
    """Raise DataNotFound where `train` may as well be a class: no other is a split's, and others hold images."""
    if set(splits.values()) != {"train"}:
        return
    others = [name for name in folders if name not in splits]
    if lost := [image for name in others for image in find_images(root, name, LeftOut(), set())]:
        train = next(iter(splits))
        raise DataNotFound(
            f"is the folder {train!r} of {str(root)!r} a split or a class? It holds folders, and "
            f"{counted(len(lost), 'image')} lie{'s' if len(lost) == 1 else ''} beside it ({listed(others)}): if it is "
            "the training split, move the other folders away; if it is a class, put all of them into a folder 'train'."
        )


def _holds_images(folder: Path) -> bool:
    with reading(folder), os.scandir(folder) as entries:
        return any(
            entry.is_file() and not entry.name.startswith(".") and is_image_name(entry.name) for entry in entries
        )


def _folders_in(folder: Path, left_out: LeftOut, named: str = "") -> list[str]:
    """Return the names of the folders in a folder; images that lie beside them belong to no class."""
    folders = []
    with reading(folder), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{named}/{entry.name}" if named else entry.name
            if is_hidden(entry, name, left_out):
                continue
            if is_folder(entry):
                folders.append(entry.name)
            elif is_image(entry, name, left_out):
                left_out.add(name, "image in no class's folder", "images in no class's folder")
    for name in folders:
        if any("\udc80" <= letter <= "\udcff" for letter in name):  # how Python keeps other bytes in a name
            raise DataNotFound(
                f"the class folder {os.fsencode(name)!r} in {str(folder)!r} has a name that isn't UTF-8; rename it"
            )
    return folders


def _entries(
    root: Path, split_folder: str, classes: Sequence[str], split: Split | None, left_out: LeftOut
) -> list[Entry]:
    entries = []
    for label in classes:
        _check_name(root / split_folder, label)
        below = f"{split_folder}/{label}" if split_folder else label
        images = find_images(root, below, left_out)
        if not images:
            left_out.add(below, "class folder without images", "class folders without images")
        entries += [
            Entry(image.name, label, (image.size, image.mtime_ns), split, identity=image.identity) for image in images
        ]
    if split is not None and not entries:
        raise DataNotFound(
            f"the folder {one_line(split_folder)!r} of {str(root)!r} must hold class folders of images, but holds "
            "none; remove it, or lay them out as PATH/train/<class>/<image>."
        )
    return entries


def _check_name(folder: Path, name: str) -> None:
    """Raise DataNotFound if a class's name would break a line or steer a terminal wherever it is shown."""
    if has_controls(name):
        raise DataNotFound(
            f"the class folder {name!r} in {str(folder)!r} has control characters in its name; rename it"
        )


def _folder_of(name: str, depth: int) -> str | None:
    """Return the first folder below its class's folder that an image is in, None if it is in that itself."""
    between = name.split("/")[depth:-1]
    return between[0] if between else None
