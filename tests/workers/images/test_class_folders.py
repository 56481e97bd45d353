"""Folders of images as people lay them out: what is read, into which split, and what is said of the rest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from space.errors import DataNotFound, InvalidSettings
from tests.workers.images.folders import make_folder_that_cannot_be_read
from workers.images.batches import ImageData, load
from workers.images.cache import outline, prepare
from workers.images.data_info import DataInfo
from workers.images.datasets import find_source
from workers.settings import DataSettings

CLASSES = ("cat", "dog")
SUFFIXES = (
    "png apng jpg jpeg JPG jfif jpe mpo bmp dib gif tif TIFF webp ppm pgm pbm pnm".split()  # what Pillow writes itself
)


def save_image(file: Path, number: int) -> None:
    """A picture like no other: four bars of brightnesses that the number decides."""
    file.parent.mkdir(parents=True, exist_ok=True)
    bars = np.random.default_rng(number).integers(0, 256, (1, 4), dtype=np.uint8).repeat(3, axis=1)
    kind = {".dib": "BMP", ".jfif": "JPEG", ".jpe": "JPEG", ".pbm": "PPM", ".pnm": "PPM"}.get(file.suffix.lower())
    Image.fromarray(bars.repeat(12, axis=0)).save(file, format=kind)


def save_split(folder: Path, per_class: int, first: int = 0) -> None:
    for index, name in enumerate(CLASSES):
        for number in range(per_class):
            save_image(folder / name / f"{number:02}.png", first + 1000 * index + number)


def settings_for(folder: Path, **values: object) -> DataSettings:
    return DataSettings(dataset=f"imagefolder:{folder}", image_size=8, channels=1, **values)


def prepared(settings: DataSettings, cache: Path) -> tuple[DataInfo, ImageData]:
    return prepare(settings, cache), load(settings, cache)


def names_of(data: ImageData, which: str) -> set[str]:
    split = data.test() if which == "test" else getattr(data, which)
    assert split.names is not None
    return set(split.names)


# --- what is read -----------------------------------------------------------------------------------------------


def test_a_class_is_read_to_the_ends_of_its_folders_and_every_suffix_is_read(tmp_path: Path):
    folder = tmp_path / "pets"
    for name in CLASSES:
        for number, suffix in enumerate(SUFFIXES):
            save_image(folder / name / f"camera {number % 3}" / "2024" / f"{number}.{suffix}", number)
    info, data = prepared(settings_for(folder), tmp_path / "cache")
    assert info.train_images + info.validation_images + info.test_images == 2 * len(SUFFIXES)
    everything = names_of(data, "train") | names_of(data, "validation") | names_of(data, "test")
    assert "cat/camera 0/2024/0.png" in everything
    assert "the images are 12x12 pixels in their files" in info.notes


def test_what_is_left_out_is_counted_and_named(tmp_path: Path):
    save_split(tmp_path, 5)
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "cat" / "._00.png").write_text("shadow")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / "cat" / ".DS_Store").write_text("")
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / "cat" / "photo.heic").write_text("")
    (tmp_path / "README.md").write_text("")
    save_image(tmp_path / "stray.png", 1)
    (tmp_path / "wolf" / "later").mkdir(parents=True)
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    info = outline(settings_for(tmp_path))
    assert info.class_names == CLASSES
    assert sorted(info.notes) == [
        "left out: 1 class folder without images (wolf)",
        "left out: 1 device (dog/pipe.png)",
        "left out: 1 folder of macOS (__MACOSX)",
        "left out: 1 hidden file (cat/.DS_Store)",
        "left out: 1 hidden folder (.thumbnails)",
        "left out: 1 image in no class's folder (stray.png)",
        "left out: 1 link that leads nowhere (cat/gone.png)",
        "left out: 3 files that are no images by their suffix (README.md, cat/notes.txt, cat/photo.heic)",
    ]


def test_links_that_lead_back_end_and_every_folder_is_read_once(tmp_path: Path):
    save_split(tmp_path, 5)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat", target_is_directory=True)
    for name in ("a", "b", "c", "d"):  # each leads to all others: the paths are endless, and so are those without loops
        (tmp_path / "dog" / name).mkdir()
    for name in ("a", "b", "c", "d"):
        for other in ("a", "b", "c", "d"):
            (tmp_path / "dog" / name / f"to-{other}").symlink_to(tmp_path / "dog" / other, target_is_directory=True)
    (tmp_path / "dog" / "itself.png").symlink_to("itself.png")
    (tmp_path / "cat" / "up").symlink_to(tmp_path, target_is_directory=True)  # dogs aren't cats, whatever leads to them
    content = find_source(settings_for(tmp_path)).open()
    assert len(content.train.labels) == 10
    assert "left out: 18 links to folders that are read already" in " ".join(content.notes)


def test_names_from_an_archive_cannot_break_a_line(tmp_path: Path):
    save_split(tmp_path, 5)
    (tmp_path / "cat" / ("x\n\x1b[31m" + 200 * "y")).write_text("")
    (note,) = outline(settings_for(tmp_path)).notes
    assert note.isprintable()
    assert len(note) < 160


@pytest.mark.parametrize("name", ["x\ny\x1b[31m", "x\u2028", "x\u202ey"])
def test_a_class_folder_whose_name_would_steer_a_terminal_is_refused(tmp_path: Path, name: str):
    save_split(tmp_path, 1)
    (tmp_path / "cat").rename(tmp_path / name)
    with pytest.raises(DataNotFound, match="has control characters in its name; rename it") as refusal:
        outline(settings_for(tmp_path))
    assert str(refusal.value).isprintable()


# --- splits made by hand ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("called", ["val", "valid", "validation", "dev", "Val"])
def test_a_validation_split_made_by_hand_is_the_validation_split(tmp_path: Path, called: str):
    save_split(tmp_path / "pets" / "train", 10)
    save_split(tmp_path / "pets" / called, 3, first=100)
    save_split(tmp_path / "pets" / "test", 2, first=200)
    info, data = prepared(settings_for(tmp_path / "pets"), tmp_path / "cache")
    assert (info.train_images, info.validation_images, info.test_images) == (20, 6, 4)
    assert {name.partition("/")[0] for name in names_of(data, "validation")} == {called}
    assert {name.partition("/")[0] for name in names_of(data, "test")} == {"test"}
    assert "the validation and test splits are as made by hand" in info.notes


def test_a_validation_split_made_by_hand_is_not_cut_into_folds(tmp_path: Path):
    save_split(tmp_path / "train", 10)
    save_split(tmp_path / "val", 3, first=100)
    with pytest.raises(DataNotFound, match=r"made by hand, so it can't be in 5 folds; leave data\.folds out"):
        outline(settings_for(tmp_path, folds=5))


def test_without_a_test_split_one_is_held_out_of_the_training_images(tmp_path: Path):
    save_split(tmp_path / "pets" / "train", 10)
    save_split(tmp_path / "pets" / "valid", 3, first=100)
    info, data = prepared(settings_for(tmp_path / "pets"), tmp_path / "cache")
    assert (info.train_images, info.validation_images, info.test_images) == (16, 6, 4)
    assert {name.partition("/")[0] for name in names_of(data, "test")} == {"train"}


def test_folders_beside_the_splits_are_named(tmp_path: Path):
    for name in ("train", "test", "unsorted", "cat"):
        save_split(tmp_path / name, 3)
    content = find_source(settings_for(tmp_path)).open()
    assert "left out: 2 folders beside the splits' folders (cat, unsorted)" in content.notes
    images = (
        "left out: 12 images beside the splits' folders (cat/cat/00.png, cat/cat/01.png, cat/cat/02.png and 9 more)"
    )
    assert images in content.notes


def test_folders_without_images_that_are_no_splits_are_named_too_and_may_be_unreadable(tmp_path: Path):
    for name in ("train", "test"):
        save_split(tmp_path / name, 3)
    for name in ("annotations/y.xml", "eval/a/x.heic"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    (tmp_path / "empty").mkdir()
    make_folder_that_cannot_be_read(tmp_path / "locked")
    notes = outline(settings_for(tmp_path)).notes
    assert "left out: 4 folders beside the splits' folders (annotations, empty, eval, locked)" in notes
    assert any(note.startswith("left out: 1 folder that can't be read (locked/") for note in notes)


def test_train_is_asked_about_where_it_may_be_a_class(tmp_path: Path):
    save_split(tmp_path / "train", 3)
    save_split(tmp_path, 3, first=100)
    with pytest.raises(
        DataNotFound, match=r"a split or a class\? It holds folders, and 6 images lie beside it \(cat, d"
    ):
        outline(settings_for(tmp_path))
    shutil.rmtree(tmp_path / "cat")
    shutil.rmtree(tmp_path / "dog")
    (tmp_path / "empty").mkdir()
    assert outline(settings_for(tmp_path)).class_names == CLASSES


@pytest.mark.parametrize("inner", ["data", "data/train"])
def test_a_folder_around_the_data_set_is_said(tmp_path: Path, inner: str):
    save_split(tmp_path / inner, 3)
    with pytest.raises(DataNotFound, match=r"did you mean `dataset = \"imagefolder:.*data\"`\?"):
        outline(settings_for(tmp_path))


# --- one file by several names ----------------------------------------------------------------------------------


def test_a_file_in_two_classes_by_whatever_link_is_refused(tmp_path: Path):
    save_split(tmp_path / "folder", 5)
    (tmp_path / "folder" / "wolf").symlink_to("dog", target_is_directory=True)
    with pytest.raises(
        DataNotFound, match=r"one label, .* 5 files have two \(dog/00.png and wolf/00.png: dog and wolf;"
    ):
        outline(settings_for(tmp_path / "folder"))
    for name in ("hard", "soft"):
        save_split(tmp_path / name, 5)
        cat, other = tmp_path / name / "cat" / "00.png", tmp_path / name / "dog" / "other.png"
        other.hardlink_to(cat) if name == "hard" else other.symlink_to(cat)
        with pytest.raises(DataNotFound, match=r"but 1 file has two \(cat/00.png and dog/other.png: cat and dog\)"):
            outline(settings_for(tmp_path / name))


def test_a_file_in_two_splits_is_refused_and_one_twice_in_a_split_is_one_image(tmp_path: Path):
    save_split(tmp_path / "train", 5)
    (tmp_path / "train" / "cat" / "again.png").hardlink_to(tmp_path / "train" / "cat" / "00.png")
    content = find_source(settings_for(tmp_path)).open()
    assert len(content.train.labels) == 10
    assert "left out: 1 further name of a file that is listed (train/cat/again.png)" in content.notes
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "cat").symlink_to("../train/cat", target_is_directory=True)
    with pytest.raises(DataNotFound, match=r"must have one split, .*test/cat/00.png and train/cat/00.png: test and tr"):
        outline(settings_for(tmp_path))


def test_a_class_that_a_split_lacks_is_said_and_one_that_training_lacks_is_refused(tmp_path: Path):
    save_split(tmp_path / "train", 5)
    save_split(tmp_path / "test", 5)
    shutil.rmtree(tmp_path / "test" / "dog")
    notes = outline(settings_for(tmp_path)).notes
    assert any("the test split has no images of 1 class (dog), so nothing is known" in note for note in notes)
    shutil.rmtree(tmp_path / "train" / "cat")
    with pytest.raises(DataNotFound, match=r"1 class of the test split \(cat\) has none; move some there, or correct"):
        outline(settings_for(tmp_path))


def test_two_folders_for_one_split_are_refused(tmp_path: Path):
    for name in ("train", "val", "valid"):
        save_split(tmp_path / name, 3)
    with pytest.raises(DataNotFound, match="one folder for each split, but val, valid are all the validation split"):
        outline(settings_for(tmp_path))


def test_a_test_folder_of_class_folders_beside_classes_is_not_a_class(tmp_path: Path):
    save_split(tmp_path, 3)
    save_split(tmp_path / "test", 3)
    with pytest.raises(DataNotFound, match="a folder 'test' of class folders, so it needs a folder 'train'"):
        outline(settings_for(tmp_path))


def test_a_moved_image_from_one_split_to_another_is_another_data_set_and_a_renamed_one_is_not(tmp_path: Path):
    folder, cache = tmp_path / "pets", tmp_path / "cache"
    save_split(folder / "train", 5)
    save_split(folder / "val", 3, first=100)
    before = prepare(settings_for(folder), cache).fingerprint
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert prepare(settings_for(tmp_path / "elsewhere"), cache).fingerprint == before
    (folder / "val" / "cat" / "00.png").rename(folder / "val" / "cat" / "000.png")
    assert prepare(settings_for(folder), cache).fingerprint == before
    (folder / "train" / "dog" / "04.png").rename(folder / "val" / "dog" / "0.png")
    assert prepare(settings_for(folder), cache).fingerprint != before


def test_class_folders_without_extras_are_the_data_that_earlier_versions_read(tmp_path: Path):
    save_split(tmp_path / "pets", 10)
    info, data = prepared(settings_for(tmp_path / "pets"), tmp_path / "cache")
    assert info.fingerprint == "4076685575ba61a5"
    assert data.validation.places.tolist() == [4, 6, 10, 12]


def test_outer_folders_that_may_be_splits_by_another_name_are_doubted(tmp_path: Path):
    for name in ("learning", "checking"):
        save_split(tmp_path / name, 4)
    notes = outline(settings_for(tmp_path)).notes
    assert any(
        "each class's folder (checking, learning) holds the same folders (cat, dog); if" in note for note in notes
    )
    save_image(tmp_path / "checking" / "one more.png", 1)
    assert not any("the same folders" in note for note in outline(settings_for(tmp_path)).notes)


# --- groups by folder -------------------------------------------------------------------------------------------


def test_folders_in_class_folders_can_be_groups_that_no_split_parts(tmp_path: Path):
    for name in CLASSES:
        for patient in range(10):
            for number in range(1 + patient % 4):
                save_image(tmp_path / "scans" / name / f"patient {patient}" / f"{number}.png", 100 * patient + number)
    settings = settings_for(tmp_path / "scans", group="folder")
    info, data = prepared(settings, tmp_path / "cache")
    patients = [{name.split("/")[1] for name in names_of(data, which)} for which in ("train", "validation", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10
    assert all(patients)
    assert any(note.startswith("10 groups of images, the largest of 8") for note in info.notes)
    assert prepare(settings_for(tmp_path / "scans"), tmp_path / "cache").fingerprint != info.fingerprint


def test_a_group_is_the_first_folder_below_the_class_however_deep_its_images_lie(tmp_path: Path):
    for name in CLASSES:
        for number in range(20):
            save_image(tmp_path / "scans" / name / f"p{number % 5}" / f"s{number}" / "0.png", number)
    settings = settings_for(tmp_path / "scans", group="folder")
    info, data = prepared(settings, tmp_path / "cache")
    patients = [{name.split("/")[1] for name in names_of(data, which)} for which in ("train", "validation", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 5
    assert any(note.startswith("5 groups of images, the largest of 8") for note in info.notes)


def test_a_group_on_both_sides_of_splits_made_by_hand_is_refused(tmp_path: Path):
    for split in ("train", "test"):
        for name in CLASSES:
            save_image(tmp_path / split / name / "patient 1" / "0.png", 1)
    with pytest.raises(DataNotFound, match=r"1 group of .* \(patient 1\) is in both train and test; move the images"):
        outline(settings_for(tmp_path, group="folder"))


def test_one_group_cannot_be_split_and_a_column_is_a_manifests(tmp_path: Path):
    for name in CLASSES:
        for number in range(5):
            save_image(tmp_path / name / "patient 1" / f"{number}.png", number)
    with pytest.raises(DataNotFound, match="needs more groups: one of them can't be held out"):
        outline(settings_for(tmp_path, group="folder"))
    with pytest.raises(InvalidSettings, match=r"data.group must be \"folder\" for an image folder, but is 'patient'"):
        outline(settings_for(tmp_path, group="patient"))
