"""Where images come from: every data set, read as blocks of uint8 images of one shape.

- `find_source` looks a data set up without decoding it; the `Source` it returns carries a fingerprint that changes
  when its images would, so a cache can tell whether it has them already.
- `Source.open` reads it. Images come in blocks, (n, C, H, W), so that a folder larger than memory can be decoded.
- Nothing here imports torch, unless a CIFAR set is read or Fashion-MNIST is downloaded.
"""

from __future__ import annotations

import difflib
import gzip
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from space.documents import NEAR
from space.errors import DataNotFound, UnknownDataset, UnreadableImage
from workers.files import disk_errors, user_path
from workers.images.image_files import source_of
from workers.images.listing.class_folders import list_class_folders
from workers.images.listing.manifest import list_manifest
from workers.images.listing.python_dataset import find_python_dataset
from workers.images.source import (
    BLOCK,
    Block,
    Images,
    Labels,
    Shape,
    Source,
    SourceImages,
    SourceSplit,
    fingerprint,
    fit_image,
    shape_of,
)
from workers.preprocessing import WIDENED, PixelType
from workers.settings import DataSettings

Fetched = TypeVar("Fetched")

IMAGE_FOLDER, MANIFEST, PYTHON = "imagefolder", "manifest", "python"
IMAGE_FOLDER_SHAPE: Shape = (3, 32, 32)
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
# fmt: off
FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)
# fmt: on


@dataclass(frozen=True)
class KnownDataset:
    """A data set that a study names: its label for people, its own shape and its usual augmentation."""

    label: str
    shape: Shape
    crop_padding: int  # pixels of black on every side before a random crop
    flip: bool  # whether a mirrored image is still of its class


KNOWN = {
    "digits": KnownDataset("Digits (scikit-learn)", (1, 8, 8), crop_padding=1, flip=False),
    "fashion-mnist": KnownDataset("Fashion-MNIST", (1, 28, 28), crop_padding=2, flip=False),
    "cifar10": KnownDataset("CIFAR-10", (3, 32, 32), crop_padding=4, flip=True),
    "cifar100": KnownDataset("CIFAR-100", (3, 32, 32), crop_padding=4, flip=True),
}


def find_source(settings: DataSettings) -> Source:
    """Return the source that `settings.dataset` names, at the size and channels asked for.

    Raises:
        UnknownDataset: no data set has this name.
        DataNotFound: an image folder or a manifest is missing, holds no images of two classes, or breaks a rule.
    """
    name, colon, folder = settings.dataset.partition(":")
    if name in (IMAGE_FOLDER, MANIFEST) and folder:
        list_files = list_class_folders if name == IMAGE_FOLDER else list_manifest
        listing = list_files(user_path(folder), settings.group)
        return source_of(listing, shape_of(settings, IMAGE_FOLDER_SHAPE), settings)
    if name == PYTHON and ":" in folder:
        return find_python_dataset(folder, shape_of(settings, IMAGE_FOLDER_SHAPE), settings.group)
    dataset = KNOWN.get(name)
    if dataset is None or colon:
        raise UnknownDataset(_unknown_name(settings.dataset))
    shape = shape_of(settings, dataset.shape)
    label = dataset.label
    if shape != dataset.shape:  # the name must say so: accuracies on resized images do not compare
        label += f" at {shape[0]}×{shape[1]}×{shape[2]}"
    readers = {"digits": _read_digits, "fashion-mnist": _read_fashion_mnist}
    read = readers.get(name, _read_cifar)
    return Source(label, shape, fingerprint(name, shape), lambda: read(settings, shape))


def file_of(settings: DataSettings, name: str) -> Path | None:
    """Return an image's file by its name in the splits; None where the data set's images are no files of the user's."""
    kind, _, given = settings.dataset.partition(":")
    if kind not in (IMAGE_FOLDER, MANIFEST) or not given:
        return None
    path = user_path(given)
    return (path if kind == IMAGE_FOLDER or path.is_dir() else path.parent) / name


def read_idx(path: Path) -> Images:
    """Return the uint8 array of an IDX file, gzipped or not (the format of MNIST's files).

    Raises:
        UnreadableImage: the file is not IDX, not of bytes, or cut short.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        zeros, kind, dimensions = struct.unpack_from(">HBB", data)
        if zeros != 0 or kind != 8:  # 8 = unsigned bytes
            raise ValueError(f"its first bytes are {data[:4].hex()}, those of an IDX file of bytes are 000008..")
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UnreadableImage(f"{path} should be an IDX file: {error}; fetch it again") from error


def read_cifar(dataset_class: Callable[..., Any], settings: DataSettings, shape: Shape) -> SourceImages:
    """Return a CIFAR set through its torchvision class, downloaded first where that is missing and allowed.

    Raises:
        DataNotFound: the files are missing, damaged or can't be downloaded.
    """
    root = user_path(settings.folder)

    def split_of(train: bool) -> tuple[SourceSplit, tuple[str, ...]]:
        with warnings.catch_warnings():  # the files are Python 2 pickles; NumPy 2.4 dislikes how they spell a dtype
            warnings.filterwarnings("ignore", category=np.exceptions.VisibleDeprecationWarning)
            data = dataset_class(root, train=train)  # torchvision checks the files' MD5
        labels = np.asarray(data.targets, dtype=np.int64)
        return _split_of_arrays(data.data.transpose(0, 3, 1, 2), labels, shape), tuple(data.classes)

    def read() -> SourceImages:
        train, class_names = split_of(train=True)
        return SourceImages(class_names, train, split_of(train=False)[0])

    def fetch() -> SourceImages:
        dataset_class(root, train=True, download=True)
        return read()

    try:
        return read()
    except (OSError, RuntimeError) as error:  # RuntimeError is torchvision's type for missing and for damaged files
        return _download(settings, fetch, str(error).partition(". ")[0])


def _read_cifar(settings: DataSettings, shape: Shape) -> SourceImages:
    from torchvision import datasets

    return read_cifar(datasets.CIFAR10 if settings.dataset == "cifar10" else datasets.CIFAR100, settings, shape)


def _read_digits(settings: DataSettings, shape: Shape) -> SourceImages:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    train = _split_of_arrays(pixels, labels.astype(np.int64), shape)
    return SourceImages(tuple("0123456789"), train, test=None)


def _read_fashion_mnist(settings: DataSettings, shape: Shape) -> SourceImages:
    root = user_path(settings.folder)
    places = (root / "FashionMNIST" / "raw", DEBIAN_FASHION_MNIST)
    files = next(filter(None, map(_fashion_mnist_files, places)), None)
    if files is None:

        def fetch() -> list[Path] | None:
            from torchvision import datasets

            datasets.FashionMNIST(root, download=True)
            return _fashion_mnist_files(places[0])

        files = _download(settings, fetch, f"neither {places[0]} nor {places[1]} holds its four files")
        if files is None:
            raise DataNotFound(f"fashion-mnist was downloaded, but {places[0]} doesn't hold its four files")
    splits = []
    for images_file, labels_file in (files[:2], files[2:]):
        images, labels = read_idx(images_file), read_idx(labels_file).astype(np.int64)
        if images.shape != (len(labels), 28, 28):
            raise UnreadableImage(f"{images_file} should hold {len(labels)} images of 28x28, has {images.shape}")
        splits.append(_split_of_arrays(images[:, None], labels, shape))
    return SourceImages(FASHION_MNIST_CLASSES, splits[0], splits[1])


def _fashion_mnist_files(folder: Path) -> list[Path] | None:
    """Return train images, train labels, test images, test labels (packed or not), or None if one is missing."""
    stems = [f"{split}-{kind}" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    candidates = [(folder / f"{stem}-ubyte", folder / f"{stem}-ubyte.gz") for stem in stems]
    choices = [next(filter(Path.is_file, pair), None) for pair in candidates]
    files = [file for file in choices if file is not None]
    return files if len(files) == len(stems) else None


def _download(settings: DataSettings, fetch: Callable[[], Fetched], reason: str) -> Fetched:
    name, root = settings.dataset, user_path(settings.folder)
    if not settings.download:
        raise DataNotFound(
            f"{name} is not in folder {str(root)!r} ({reason}): under [data], set `folder` to where it is "
            "or `download = true` to fetch it"
        )
    try:
        with disk_errors(root):
            return fetch()
    except (OSError, RuntimeError) as error:
        raise DataNotFound(f"{name} could not be downloaded to {str(root)!r}: {error}") from error


def _split_of_arrays(images: Images, labels: Labels, shape: Shape) -> SourceSplit:
    def blocks(pixel_type: PixelType) -> Iterator[Block]:
        for start in range(0, len(images), BLOCK):
            block = images[start : start + BLOCK]
            if block.shape[1:] != shape:
                pillow = [Image.fromarray(pixels.transpose(1, 2, 0).squeeze()) for pixels in block]
                block = np.stack([fit_image(image, shape) for image in pillow])
            yield Block(block if pixel_type == "uint8" else block.astype(np.uint16) * np.uint16(WIDENED))

    return SourceSplit(labels, blocks)


def _unknown_name(name: str) -> str:
    forms = [f"{IMAGE_FOLDER}:PATH", f"{MANIFEST}:PATH", f"{PYTHON}:MODULE:FUNCTION"]
    nearest = difflib.get_close_matches(name.lower(), [*KNOWN, *forms], n=1, cutoff=NEAR)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"`dataset` must be one of {', '.join([*KNOWN, *forms[:-1]])} or {forms[-1]}, but got {name!r}{hint}"
