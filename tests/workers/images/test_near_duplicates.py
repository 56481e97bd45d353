"""Images that are in two splits, or nearly so: found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from workers.images import near_duplicates
from workers.images.cache import prepare
from workers.images.near_duplicates import Part, Pictures, hashes_of, nearly_in
from workers.images.reading import read_through
from workers.settings import DataSettings

SIZE = 32


def scene(seed: int, size: int = 128) -> Image.Image:
    """A picture of soft blobs, unlike any of another seed."""
    few = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(few).resize((size, size), Image.Resampling.BICUBIC)


def as_array(*images: Image.Image) -> np.ndarray:
    return np.stack([np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for image in images]).transpose(
        0, 3, 1, 2
    )


def part(images: np.ndarray) -> Part:
    return Part(Pictures.of(images), np.arange(len(images)), tuple(f"{number}.png" for number in range(len(images))))


def test_a_picture_written_again_is_found_and_another_is_not(tmp_path: Path):
    originals = [scene(seed) for seed in range(40)]
    originals[0].save(tmp_path / "again.jpg", quality=40)
    copies = [
        Image.open(tmp_path / "again.jpg"),
        originals[1].resize((50, 50)).resize((128, 128)),
        ImageEnhance.Brightness(originals[2]).enhance(0.95),
        *(scene(seed) for seed in range(100, 140)),
    ]
    assert nearly_in(part(as_array(*copies)), part(as_array(*originals))) == [(0, 0), (1, 1), (2, 2)]


def test_plain_pictures_of_different_colours_are_not_the_same_though_their_hashes_are():
    flat = np.stack([np.full((3, 144, 144), 0), np.full((3, 144, 144), 200)]).astype(np.uint8)
    dotted = flat.copy()
    dotted[:, :, ::2, ::2] = 100  # a texture that all 8 x 9 means have alike
    assert len(set(hashes_of(flat)) | set(hashes_of(dotted))) == 1
    assert nearly_in(part(dotted), part(flat)) == []


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 13), (32, 32), (224, 224)])
def test_a_hash_says_of_neighbouring_means_which_is_brighter(size: tuple[int, int]):
    rising = np.broadcast_to(np.linspace(0, 255, size[1]).astype(np.uint8), (1, 3, *size))
    (up,), (down,) = hashes_of(rising), hashes_of(rising[..., ::-1])
    assert np.bitwise_count(up) >= (64 if size[1] >= 9 else 8 * (size[1] - 1))
    assert down == 0


def test_with_very_many_images_those_of_equal_hashes_are_found(monkeypatch: pytest.MonkeyPatch):
    images = as_array(*(scene(seed) for seed in range(20)))
    monkeypatch.setattr(near_duplicates, "MOST_COMPARISONS", 10)
    assert nearly_in(part(images[5:7]), part(images)) == [(0, 5), (1, 6)]
    assert nearly_in(part(images[5:7]), part(images[:4])) == []


def test_a_launch_says_how_many_images_of_a_split_are_in_another(tmp_path: Path):
    for split, first in (("train", 0), ("val", 4), ("test", 50)):
        for number in range(first, first + 6):
            file = tmp_path / "data" / split / ("cat" if number % 2 else "dog") / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            scene(number).save(file)
    info = prepare(DataSettings(dataset=f"imagefolder:{tmp_path / 'data'}"), tmp_path / "cache")
    (said,) = (note for note in info.notes if "nearly" in note)
    assert said.startswith(
        "2 of 6 validation images are nearly the same as a training image (val/cat/5.png is like tra"
    )
    read = read_through(DataSettings(dataset=f"imagefolder:{tmp_path / 'data'}"))
    assert read.noted == [said]  # `check --images` decodes nothing twice but those, and says the same
