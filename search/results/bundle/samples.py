"""The sample images of a bundle, with what its model files say of them: whoever deploys it can try the whole chain.

They come from the validation split, never from the test split: whoever looks at them may change something because of
it. A file of the user's is shipped as it is, so that decoding, turning and resizing are tried too; pixels that come
from no file, or from a large one, are shipped as they are after resizing, without loss.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from search.results.picking.testing import prepared_images
from search.results.plain_text import safe_name
from search.store.rows import StudyRow
from search.study_file import settings_from
from space.errors import DataNotFound
from workers.bundled import infer
from workers.bundled.reading import EXPECTED_FILE
from workers.export.model_files import open_file
from workers.file_names import precision_of, runtime_of
from workers.images import batches
from workers.images.datasets import file_of
from workers.images.source import Images

LARGEST_FILE = 1 << 20  # bytes of a file that is shipped as it is
TOLERANCE = 1e-3  # of the largest logit: other processors add in another order
FP16_TOLERANCE = 0.02  # of ncnn, which computes in 16 bits where the processor can
INT8_TOLERANCE = 0.1  # in 8 bits some levels are then off by one; the project's kernel gives the same bits everywhere


@dataclass(frozen=True)
class SampleImage:
    """An image of the validation split as a file."""

    name: str
    label: str
    content: bytes


def validation_samples(study: StudyRow, cache: Path, count: int, rules: Mapping[str, Any]) -> list[SampleImage]:
    """Return images of the validation split, of as many classes as possible; [] where the images are gone.

    Args:
        study: the study, whose images were decoded into `cache`.
        cache: the folder of decoded images.
        count: how many; fewer where the split has fewer.
        rules: `[preprocessing]` of the bundle.
    """
    data = settings_from(study.settings, "the stored settings").data
    try:
        info = prepared_images(study, data, cache)
        validation = batches.load(data, cache).validation
    except DataNotFound:
        return []
    samples: list[SampleImage] = []
    for place in _spread(validation.labels, count):
        label = info.class_names[int(validation.labels[place])]
        pixels = validation.pixels(np.array([place]))[0]
        original = None if validation.names is None else file_of(data, validation.names[place])
        suffix, content = _file(pixels, original, rules)
        samples.append(SampleImage(f"{len(samples)}-{safe_name(label) or 'class'}{suffix}", label, content))
    return samples


def _spread(labels: np.ndarray[Any, np.dtype[np.int64]], count: int) -> Iterator[int]:
    """Yield the places of the first image of each class, then of the second, until there are `count`."""
    of_class: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        if len(of_class.setdefault(label, [])) < count:
            of_class[label].append(place)
    rounds = ((turn, label, place) for label, places in of_class.items() for turn, place in enumerate(places))
    yield from [place for _, _, place in sorted(rounds)[:count]]


def _file(pixels: Images, original: Path | None, rules: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return suffix and content of a file that gives these pixels (C, H, W) by the rules: the original if it does."""
    if original is not None and original.suffix.isascii() and original.suffix[1:].isalnum():
        try:
            if original.stat().st_size <= LARGEST_FILE and np.array_equal(infer.read_pixels(original, rules), pixels):
                return original.suffix.lower(), original.read_bytes()
        except Exception:  # it is gone or was changed, and Pillow's decoders raise a dozen unrelated types
            pass
    return ".png", png_of(pixels)


def png_of(pixels: Images) -> bytes:
    """Return pixels (C, H, W) as a PNG without loss; of 16-bit pixels the first channel, whose others equal it."""
    deep = pixels.dtype == np.uint16
    array = pixels[0] if deep or len(pixels) == 1 else pixels.transpose(1, 2, 0)
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(content, format="PNG")
    return content.getvalue()


def write_samples(
    folder: Path, images: Sequence[SampleImage], models: Sequence[Path], rules: Mapping[str, Any]
) -> None:
    """Write sample images, and beside them what each model file says of them."""
    folder.mkdir()
    for image in images:
        (folder / image.name).write_bytes(image.content)
    inputs = [input_of(folder / image.name, rules) for image in images]
    logits = {path.name: logits_of(path, inputs) for path in models}
    document = {
        "tolerances": {path.name: tolerance_of(path) for path in models},
        "images": [
            {
                "file": image.name,
                "label": image.label,
                "logits": {
                    name: [float(f"{one:.6g}") for one in rows[place].tolist()] for name, rows in logits.items()
                },
            }
            for place, image in enumerate(images)
        ],
    }
    (folder / EXPECTED_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def tolerance_of(model: Path) -> float:
    """Return how far a model file's logits may be from the recorded ones on another machine; see `TOLERANCE`."""
    precision, runtime = precision_of(model), runtime_of(model)
    if precision == "fp16" and runtime == "ncnn":
        return FP16_TOLERANCE
    return INT8_TOLERANCE if precision == "int8" and runtime != "native" else TOLERANCE


def input_of(file: Path, rules: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return a network's input (C, H, W) for an image file, as infer.py makes it."""
    pixels = infer.read_pixels(file, rules)
    return pixels if rules["in_model"] else infer.scaled(pixels, rules)


def logits_of(path: Path, inputs: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return the logits (n, classes) of a model file for some inputs (C, H, W)."""
    run = open_file(runtime_of(path), path)
    return np.stack([run(one) for one in inputs])
