"""A data set of a user's own Python code: `python:MODULE:FUNCTION`, for whatever no folder and no manifest can say.

The function takes nothing and returns one of two things, by what it has:

- a mapping with `images` (a sequence; or an array (N, H, W) or (N, H, W, 3)) and `labels` (N, text or whole numbers),
  and if it likes `names`, `splits`, `groups` and `weights`, (N) of each as in a manifest, and `class_names`, by the
  labels' numbers, whose order is kept;
- a torch Dataset (anything with a length and items): items are (image, label); `targets` are its labels if it has
  them, else all items are read for them; `classes` are the names of the classes.

An image is Pillow's, an array (H, W) or (H, W, 3) of uint8, (H, W) of uint16, or a tensor (C, H, W) of uint8 or of
floats from 0 to 1. The module is run where images are prepared, with what that user may do; it is found in the working
directory or among what is installed, and so is whatever it imports, when it is loaded or later.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from space.errors import DataNotFound, InvalidSettings
from workers.bundled.infer import holds_16_bits
from workers.images.listing.class_order import named_labels
from workers.images.listing.listing import SPLITS, Entry, ListedSplit, listing_of
from workers.images.listing.manifest import check_rows
from workers.images.listing.rows import Row
from workers.images.source import BLOCK, Block, Shape, Source, SourceImages, SourceSplit, fingerprint, fit_image
from workers.preprocessing import PixelType
from workers.wording import agreeing, counted, listed, one_line

ALSO = ("names", "splits", "groups", "weights")  # what a mapping may hold, an item for each image


@dataclass(frozen=True)
class _Returned:
    """What a user's function returned, in one form."""

    image: Callable[[int], Any]
    labels: tuple[str, ...]
    classes: tuple[str, ...] | None  # in their order; None: that of their names
    also: dict[str, tuple[str, ...]]  # of `ALSO`, those there are, "" where an image has none
    pixels: str  # the hash of an array of images; "" where images aren't one array


def find_python_dataset(name: str, shape: Shape, group: str | None) -> Source:
    """Return the data set of `MODULE:FUNCTION` as a source.

    Its fingerprint follows the module's source, the labels, and the images where they are one array; whatever else the
    function reads, it doesn't follow.

    Raises:
        DataNotFound: the module or the function isn't there, fails, or returns something else than is documented.
        InvalidSettings: the settings name a group; here the function does.
    """
    if group is not None:
        raise InvalidSettings(
            f"data.group must be left out for python: (the function returns groups), but is {group!r}."
        )
    label = f"{name} (python)"
    here = Path.cwd()
    with _importing_from(here):
        function, source_hash = _function(name)
        returned = _called(name, function)
    returned = replace(returned, image=_importing_from(here)(returned.image))
    rows = [
        Row(
            returned.also["names"][place] if "names" in returned.also else str(place),
            (text,),
            f"image {place}",
            *(returned.also[key][place] if key in returned.also else "" for key in ALSO[1:]),
        )
        for place, text in enumerate(returned.labels)
    ]
    check_rows(label, rows, "image")
    entries = [
        Entry(
            row.path,
            row.labels[0],
            (place, 0),
            SPLITS.get(row.split.lower()),
            row.group or None,
            float(row.weight) if row.weight else None,
        )
        for place, row in enumerate(rows)
    ]
    notes = [f"the images are what {one_line(name)} returns, whose source has the SHA-256 {source_hash}"]
    with_images = set(returned.labels)
    if absent := [name_of_class for name_of_class in returned.classes or () if name_of_class not in with_images]:
        notes.append(
            f"{counted(len(absent), 'class', 'classes')} of class_names ({listed(absent)}) "
            f"{agreeing(len(absent), 'has', 'have')} no images, so networks have no output for "
            f"{agreeing(len(absent), 'it', 'them')} and number the others without"
        )
    listing = listing_of(Path(), label, entries, notes, returned.classes)

    def read() -> SourceImages:
        test = None if listing.test is None else _split_of(returned, listing.test, shape)
        return SourceImages(listing.class_names, _split_of(returned, listing.train, shape), test, listing.notes)

    order = () if listing.class_names == tuple(sorted(listing.class_names)) else (listing.class_names,)
    content = fingerprint(label, shape, source_hash, returned.labels, returned.also, returned.pixels, *order)
    return Source(label, shape, content, read, listing.notes)


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported, as they are where Python itself is started in it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # what was run may have changed the path itself
            sys.path.remove(str(folder))


def _function(name: str) -> tuple[Callable[[], Any], str]:
    """Return a function by MODULE:FUNCTION, and the SHA-256 of its module's source."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, function_name)
    except (Exception, SystemExit) as error:  # whatever a user's module may raise
        raise _failed(name, "can't be imported", error) from error
    file = getattr(module, "__file__", None)
    if not callable(function) or file is None:
        raise DataNotFound(f'{one_line(name)} must be a function in a module: `dataset = "python:MODULE:FUNCTION"`')
    return function, hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _failed(name: str, how: str, error: BaseException) -> DataNotFound:
    reason = f"{type(error).__name__}: {error}"
    return DataNotFound(
        f"python:{one_line(name)} {how} ({one_line(reason, 300)}); correct the module, or the name: "
        "python:MODULE:FUNCTION, found in the working directory or installed."
    )


def _called(name: str, function: Callable[[], Any]) -> _Returned:
    try:
        data = function()
        if isinstance(data, Mapping):
            return _of_mapping(data)
        return _of_dataset(data)
    except DataNotFound:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's function may raise
        raise _failed(name, "didn't return a data set", error) from error


def _of_mapping(data: Mapping[str, Any]) -> _Returned:
    _check_keys(data)
    images, labels = data["images"], list(data["labels"])
    also = {key: tuple(map(_text, data[key])) for key in ALSO if data.get(key) is not None}
    for key, values in {"images": images, **also}.items():
        if len(values) != len(labels):
            raise ValueError(f"{key} and labels must be as many, but are {len(values)} and {len(labels)}")
    if twice := [name for name, count in Counter(also.get("names", ())).items() if count > 1 and name]:
        raise ValueError(f"names must differ, but these are there twice: {listed(twice)}")
    pixels = ""
    if isinstance(images, np.ndarray):
        pixels = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest() + str((images.shape, images.dtype))
    return _Returned(images.__getitem__, *named_labels(labels, data.get("class_names")), also, pixels)


def _check_keys(data: Mapping[str, Any]) -> None:
    """Raise ValueError if a mapping holds something that nothing reads: a split that is misspelt would be lost."""
    known = ("images", "labels", "class_names", *ALSO)
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the mapping must hold {', '.join(known)} alone, but has {one_line(str(key))!r}{hint}")


def _of_dataset(data: Any) -> _Returned:
    targets = getattr(data, "targets", None)
    if targets is None or len(targets) != len(data):
        targets = [data[place][1] for place in range(len(data))]
    names = named_labels(list(targets), getattr(data, "classes", None))
    return _Returned(lambda place: data[place][0], *names, {}, "")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


# --- images -----------------------------------------------------------------------------------------------------


def _split_of(returned: _Returned, part: ListedSplit, shape: Shape) -> SourceSplit:
    places = [place for place, _ in part.stats]

    def blocks(pixel_type: PixelType) -> Iterator[Block]:
        for start in range(0, len(places), BLOCK):
            yield _decoded(returned, places[start : start + BLOCK], shape, pixel_type)

    return SourceSplit(
        part.labels,
        blocks,
        part.details,
        lambda place, pixel_type: fit_image(_as_image(returned.image(places[place])), shape, pixel_type),
    )


def _decoded(returned: _Returned, places: Sequence[int], shape: Shape, pixel_type: PixelType) -> Block:
    pixels = np.empty((len(places), *shape), dtype=pixel_type)
    unreadable, count, deep = [], 0, False
    for index, place in enumerate(places):
        try:
            image = _as_image(returned.image(place))
            pixels[count] = fit_image(image, shape, pixel_type)
            deep = deep or holds_16_bits(image)
        except (Exception, SystemExit) as error:  # whatever a user's data set may raise
            unreadable.append((index, f"{type(error).__name__}: {error}"))
        else:
            count += 1
    return Block(pixels[:count], tuple(unreadable), has_16_bits=deep)


def _as_image(given: Any) -> Image.Image:
    """Return an image in one of the documented forms as Pillow's.

    Raises:
        ValueError: it is of another form.
    """
    if isinstance(given, Image.Image):
        return given
    is_tensor = hasattr(given, "detach")
    array = given.detach().cpu().numpy() if is_tensor else np.asarray(given)
    if is_tensor and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if is_tensor and array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"floats must be from 0 to 1, but are from {array.min():g} to {array.max():g}")
        array = np.rint(array * 255).astype(np.uint8)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    grey_or_colour = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not grey_or_colour or array.dtype not in ((np.uint8, np.uint16) if array.ndim == 2 else (np.uint8,)):
        raise ValueError(f"an image must be (H, W) or (H, W, 3) of uint8, but is {array.shape} of {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array))
