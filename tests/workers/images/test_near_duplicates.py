"""Images that are in two splits, or nearly so: found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from workers.images import near_duplicates
from workers.images.cache import prepare
from workers.images.near_duplicates import Part, Pictures, hashes_of, nearly_in, notes_on
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
    assert nearly_in(part(as_array(*copies)), part(as_array(*originals))) == ([(0, 0), (1, 1), (2, 2)], True)


def test_plain_pictures_of_different_colours_are_not_the_same_though_their_hashes_are():
    flat = np.stack([np.full((3, 144, 144), 0), np.full((3, 144, 144), 200)]).astype(np.uint8)
    dotted = flat.copy()
    dotted[:, :, ::2, ::2] = 100  # a texture that all 8 x 9 means have alike
    assert len(set(hashes_of(flat)) | set(hashes_of(dotted))) == 1
    assert nearly_in(part(dotted), part(flat)) == ([], True)


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 13), (32, 32), (224, 224)])
def test_a_hash_says_of_neighbouring_means_which_is_brighter(size: tuple[int, int]):
    rising = np.broadcast_to(np.linspace(0, 255, size[1]).astype(np.uint8), (1, 3, *size))
    (up,), (down,) = hashes_of(rising), hashes_of(rising[..., ::-1])
    assert np.bitwise_count(up) >= (64 if size[1] >= 9 else 8 * (size[1] - 1))
    assert down == 0


def test_with_very_many_images_those_of_equal_hashes_are_found(monkeypatch: pytest.MonkeyPatch):
    images = as_array(*(scene(seed) for seed in range(20)))
    monkeypatch.setattr(near_duplicates, "MOST_COMPARISONS", 5)
    assert nearly_in(part(images[5:7]), part(images)) == ([(0, 5), (1, 6)], True)
    assert nearly_in(part(images[5:7]), part(images[:4])) == ([], False)
    brighter = images[5:7] // 2 + 100  # other pixels, equal hashes or nearly
    assert nearly_in(part(brighter), part(images), scale=5000) == ([(0, 5), (1, 6)], False)


def stripes(count: int) -> np.ndarray:
    """Pictures of plain grey rows, all of which have the same hash, since only neighbours in a row are compared."""
    rows = np.random.default_rng(0).integers(0, 256, (count, 1, SIZE, 1), dtype=np.uint8)
    return np.broadcast_to(rows, (count, 3, SIZE, SIZE))


def test_every_exact_copy_is_found_however_many_pictures_look_alike():
    images = stripes(40)
    assert len(set(hashes_of(images))) == 1
    assert nearly_in(part(images[20:]), part(images)) == ([(index, index + 20) for index in range(20)], True)


def test_what_may_be_too_few_is_said_to_be_at_least_so_many():
    images = stripes(40)
    nearly = images[20:] // 2 * 2  # a level off, so not found among the first that look alike
    parts = {"train": part(images), "test": part(np.concatenate([images[:3], nearly]))}
    (said,) = notes_on(parts, 255.0)
    assert said.startswith("at least 3 of 23 test images are nearly the same as a training image (0.png is like 0.png)")
    (said,) = notes_on({"train": part(images), "test": part(nearly)}, 255.0)
    assert said.startswith("no test image was found to be nearly the same as a training image, but so many look alike")


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


def test_check_compares_16_bit_greys_as_a_launch_does(tmp_path: Path):
    checks = (np.indices((128, 128)).sum(axis=0) % 2 * 600).astype(np.uint16)  # which no hash sees, of a range of 2000
    for split, texture in (("train", 0), ("val", checks)):
        for number in range(4):
            file = tmp_path / "data" / split / ("cat" if number % 2 else "dog") / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            greys = np.asarray(scene(number).convert("L")).astype(np.uint16) * 5 + 4000
            Image.fromarray(greys + (texture if number else 0)).save(file)
    settings = DataSettings(dataset=f"imagefolder:{tmp_path / 'data'}", image_size=128, channels=1)
    info = prepare(settings, tmp_path / "cache")
    (said,) = (note for note in info.notes if "nearly" in note)
    assert said.startswith("1 of ")  # the picture without texture
    assert "dog/0.png is like " in said
    assert said in read_through(settings).noted
    assert any("kept with 16 bits" in note for note in read_through(settings).noted)
