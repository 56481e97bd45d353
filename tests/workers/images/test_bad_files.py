"""Files that can't be read: all are named at once, skipped where that is asked for, and none fills the memory."""

from __future__ import annotations

import csv
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from space.errors import DataNotFound, UnreadableImage
from workers.bundled import infer
from workers.images.batches import load
from workers.images.cache import outline, prepare
from workers.images.reading import read_through
from workers.images.split_file import split_table
from workers.preprocessing import Preprocessing
from workers.settings import DataSettings


def save_pets(folder: Path, per_class: int = 10) -> None:
    for at, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            Image.new("RGB", (12, 10), (20 * number, 100 * at, 50)).save(folder / name / f"{number:02}.png")


def settings_for(folder: Path, **values: object) -> DataSettings:
    return DataSettings(dataset=f"imagefolder:{folder}", image_size=8, **values)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_all_files_that_cannot_be_read_are_in_one_message(tmp_path: Path):
    save_pets(tmp_path / "pets")
    for number in (1, 2, 7):
        (tmp_path / "pets" / "dog" / f"{number:02}.png").write_bytes(b"no image\n" * number)
    (tmp_path / "pets" / "cat" / "00.png").write_bytes(png_of_size(40_000, 40_000))
    with pytest.raises(UnreadableImage, match=r"4 files of 20 of pets .* can't be read as an image: cat/00") as refusal:
        prepare(settings_for(tmp_path / "pets"), tmp_path / "cache")
    text = str(refusal.value)
    assert "cat/00.png (more than 179 million pixels, which would fill the memory; make it smaller)" in text
    assert all(f"dog/{number:02}.png (no image that is known here)" in text for number in (1, 2, 7))
    assert text.endswith('Repair or remove them, or set data.unreadable = "skip".')
    assert "\n" not in text
    assert not (tmp_path / "cache").exists()
    many = read_through(settings_for(tmp_path / "pets"))
    assert [bad.name for bad in many.unreadable] == ["cat/00.png", "dog/01.png", "dog/02.png", "dog/07.png"]


def test_files_that_cannot_be_read_are_skipped_where_that_is_asked_for(tmp_path: Path):
    save_pets(tmp_path / "pets")
    cache, pets = tmp_path / "cache", tmp_path / "pets"
    (pets / "dog" / "01.png").write_bytes(b"no image")
    skipping = settings_for(pets, unreadable="skip")
    info = prepare(skipping, cache)
    assert info.train_images + info.validation_images + info.test_images == 19
    assert "left out: 1 file that can't be read (dog/01.png)" in info.notes
    data = load(skipping, cache)
    for split in (data.train, data.validation, data.test()):
        assert split.names is not None
        for at, name in enumerate(split.names):
            number = int(name[4:6])
            assert split.pixels(np.array([at]))[0, :, 0, 0].tolist() == [20 * number, 100 * (name[:3] == "dog"), 50]
            assert split.labels[at] == (name[:3] == "dog")
    with pytest.raises(UnreadableImage, match="1 file of 20"):  # what was skipped once isn't skipped unasked
        prepare(settings_for(pets), cache)
    (pets / "dog" / "02.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"2 files of 20 .* At most 5% may be skipped \(data.unreadable_most\)"):
        prepare(skipping, cache)
    assert prepare(settings_for(pets, unreadable="skip", unreadable_most=0.1), cache).num_classes == 2


def test_what_is_left_out_is_said_of_the_folder_as_it_is_now(tmp_path: Path):
    save_pets(tmp_path / "pets")
    settings, cache = settings_for(tmp_path / "pets"), tmp_path / "cache"
    before = prepare(settings, cache)
    (tmp_path / "pets" / "README.md").write_text("none of the images")
    now = prepare(settings, cache)
    assert now.fingerprint == before.fingerprint
    assert set(now.notes) - set(before.notes) == {"left out: 1 file that is no image by its suffix (README.md)"}
    (tmp_path / "pets" / "README.md").unlink()
    assert prepare(settings, cache) == before
    assert prepare(settings_for(tmp_path / "pets", split_seed=1), cache).notes == before.notes


def test_a_lower_limit_of_what_may_be_skipped_holds_for_decoded_images(tmp_path: Path):
    save_pets(tmp_path / "pets")
    for number in (1, 2):
        (tmp_path / "pets" / "dog" / f"{number:02}.png").write_bytes(b"no image")
    many = settings_for(tmp_path / "pets", unreadable="skip", unreadable_most=0.1)
    info = prepare(many, tmp_path / "cache")
    with pytest.raises(UnreadableImage, match=r"2 files of 20 .* dog/01\.png .* At most 5% may be skipped"):
        prepare(settings_for(tmp_path / "pets", unreadable="skip"), tmp_path / "cache")
    assert prepare(many, tmp_path / "cache") == info


SPLIT_PETS = {"train": 10, "val": 4, "test": 4}


def save_split_pets(folder: Path) -> None:
    for split, per_class in SPLIT_PETS.items():
        save_pets(folder / split, per_class)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("test/*/*.png", "no image of the test split of pets .* can be read; repair its files, or add others"),
        ("val/*/*.png", "no image of the validation split of pets .* can be read; repair"),
        ("train/dog/*.png", r"no training image of 1 class of pets .* \(dog\) can be read; repair"),
    ],
)
def test_what_skipping_leaves_must_have_every_split_and_class(tmp_path: Path, damaged: str, message: str):
    save_split_pets(tmp_path / "pets")
    for file in (tmp_path / "pets").glob(damaged):
        file.write_bytes(b"no image")
    settings = settings_for(tmp_path / "pets", unreadable="skip", unreadable_most=0.9)
    for _ in range(2):  # decoded, and as it is kept
        with pytest.raises(DataNotFound, match=message):
            prepare(settings, tmp_path / "cache")


def test_a_split_that_was_made_without_a_class_is_said(tmp_path: Path):
    save_pets(tmp_path / "pets", 20)
    (tmp_path / "pets" / "owl").mkdir()
    Image.new("RGB", (12, 10), (7, 7, 7)).save(tmp_path / "pets" / "owl" / "only.png")
    unknown = "has no images of 1 class (owl), so nothing is known of how well it is recognised"
    said = [f"the validation split {unknown}", f"the test split {unknown}"]
    settings = settings_for(tmp_path / "pets")
    for info in (outline(settings), prepare(settings, tmp_path / "cache")):
        assert [note for note in info.notes if "has no images" in note] == said


def test_a_split_that_lost_a_class_to_skipping_is_said(tmp_path: Path):
    save_split_pets(tmp_path / "pets")
    for file in (tmp_path / "pets" / "test" / "dog").iterdir():
        file.write_bytes(b"no image")
    settings = settings_for(tmp_path / "pets", unreadable="skip", unreadable_most=0.5)
    (note,) = (note for note in prepare(settings, tmp_path / "cache").notes if "has no images" in note)
    assert note.startswith("the test split has no images of 1 class (dog)")


def test_training_images_that_all_weigh_nothing_are_refused(tmp_path: Path):
    save_split_pets(tmp_path)
    rows = [
        f"{file.relative_to(tmp_path)},{file.parent.name},{file.parents[1].name},{int(file.parents[1].name != 'train')}"
        for file in sorted(tmp_path.glob("*/*/*.png"))
    ]
    (tmp_path / "pets.csv").write_text("\n".join(["path,label,split,weight", *rows]))
    settings = DataSettings(dataset=f"manifest:{tmp_path / 'pets.csv'}", image_size=8)
    for look in (outline, lambda settings: prepare(settings, tmp_path / "cache")):
        with pytest.raises(
            DataNotFound, match=r"all 20 training images of pets.* weigh 0, so nothing is learned of them"
        ):
            look(settings)
    (tmp_path / "pets.csv").write_text("\n".join(["path,label,split,weight", *rows]).replace(",train,0", ",train,2", 1))
    assert prepare(settings, tmp_path / "cache").train_images == 20


def test_the_split_file_names_every_image_in_the_order_of_its_split(tmp_path: Path):
    save_pets(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "00.png").rename(tmp_path / "pets" / "cat" / 'a, "b"\udcff.png')
    settings = settings_for(tmp_path / "pets", images=12)
    info = prepare(settings, tmp_path / "cache")
    table, data = split_table(settings, tmp_path / "cache"), load(settings, tmp_path / "cache")
    assert table is not None
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    assert len(rows) == 20
    assert [row["split"] for row in rows].count("unused") == 4
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test())):
        mine = [row for row in rows if row["split"] == name]
        assert split.names is not None
        assert [row["label"] for row in mine] == [info.class_names[label] for label in split.labels]
        assert [row["file"] for row in mine if "a, " not in row["file"]] == [n for n in split.names if "a, " not in n]
    assert [row["file"] for row in rows if "a, " in row["file"]] == ['cat/a, "b"\\xff.png']
    assert split_table(DataSettings(), _digits(tmp_path)) is None


def _digits(tmp_path: Path) -> Path:
    prepare(DataSettings(), tmp_path / "digits")
    return tmp_path / "digits"


def test_a_tiff_that_would_fill_the_memory_is_refused_by_a_bundle_as_well(tmp_path: Path):
    """Pillow's own limit is for what it opens itself, and TIFFs are opened otherwise."""
    Image.new("1", (20_000, 10_000)).save(tmp_path / "large.tiff", compression="group4")
    assert (tmp_path / "large.tiff").stat().st_size < 100_000
    with pytest.raises(Image.DecompressionBombError, match="more than 179 million pixels"):
        infer.read_pixels(tmp_path / "large.tiff", Preprocessing((3, 8, 8)).table())


READ = """
import resource, sys
from pathlib import Path
from workers.images.reading import read_through
from workers.settings import DataSettings
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
record = read_through(DataSettings(dataset=f"imagefolder:{sys.argv[1]}", image_size=32))
print(record.total, len(record.unreadable), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)
"""


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(4):  # 108 MB each once decoded, a few kilobytes in the file
            Image.new("RGB", (6000, 6000), (number, 0, 0)).save(tmp_path / name / f"{number}.png", compress_level=1)
    output = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True)
    total, bad, megabytes = map(int, output.stdout.split())
    assert (total, bad) == (8, 0)
    assert megabytes < 400
