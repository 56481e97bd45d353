"""Manifests: tables of one's own, what annotation tools export, and the rows that break a rule."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from space.errors import DataNotFound, InvalidSettings
from tests.workers.images.folders import make_folder_that_cannot_be_read
from workers.images.batches import TrainingBatches, load
from workers.images.cache import outline, prepare
from workers.images.datasets import find_source
from workers.images.listing import file_search
from workers.images.source import SourceImages
from workers.settings import DataSettings

NAMES = tuple(f"{kind}{number}.png" for kind in ("cat", "dog") for number in range(5))
LABELS = {name: name[:3] for name in NAMES}


def save_images(folder: Path, names: tuple[str, ...] = NAMES) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * number).save(folder / name)


def settings_for(path: Path, **values: object) -> DataSettings:
    return DataSettings(dataset=f"manifest:{path}", image_size=8, channels=1, **values)


def table(folder: Path, *lines: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def opened(path: Path, **values: object) -> SourceImages:
    return find_source(settings_for(path, **values)).open()


def labels_in(content: SourceImages) -> Mapping[str, str]:
    parts = [part for part in (content.train, content.test) if part is not None]
    return {
        name.rpartition("/")[2]: content.class_names[label]
        for part in parts
        if part.details is not None
        for name, label in zip(part.details.names, part.labels, strict=True)
    }


# --- tables of one's own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_paths_and_labels_is_a_data_set(tmp_path: Path, separator: str):
    save_images(tmp_path / "photos")
    rows = [separator.join((f"photos/{name}", LABELS[name])) for name in NAMES]
    path = table(tmp_path, "\ufeff" + separator.join(("Path", "Label")), *rows)
    assert labels_in(opened(path)) == LABELS
    info = prepare(settings_for(path), tmp_path / "cache")
    assert (info.dataset, info.class_names, info.test_images) == ("labels.csv (manifest)", ("cat", "dog"), 2)


def test_splits_groups_and_weights_of_a_table_are_used(tmp_path: Path):
    save_images(tmp_path)
    splits = ("train", "train", "valid", "TEST", "")
    lines = [f"{name},{LABELS[name]},{splits[int(name[3])]},{name[3]},{1 + int(name[3])}" for name in NAMES]
    path = table(tmp_path, "path,label,split,patient,weight", *lines)
    chosen = settings_for(path, group="patient")
    info, data = prepare(chosen, tmp_path / "cache"), load(chosen, tmp_path / "cache")
    assert data.train.names == ("cat0.png", "cat1.png", "cat4.png", "dog0.png", "dog1.png", "dog4.png")
    assert data.validation.names == ("cat2.png", "dog2.png")
    assert data.test().names == ("cat3.png", "dog3.png")
    assert data.train.details is not None
    assert data.train.details.groups == ("0", "1", "4") * 2
    assert info.notes[:3] == (
        "the validation and test splits are as made by hand",
        "5 groups of images, the largest of 2; none is in two splits",
        "images weigh 1 to 5 in training",
    )
    _, shares = TrainingBatches(data.train, info, chosen, 6, seed=0).batch(0)
    assert sorted(shares.max(dim=1).values.tolist()) == pytest.approx(sorted([0.375, 0.75, 1.875] * 2))
    assert shares.count_nonzero().item() == 6


def test_a_file_outside_the_manifests_folder_may_be_named(tmp_path: Path):
    save_images(tmp_path / "photos")
    (tmp_path / "lists").mkdir()
    absolute = [f"{tmp_path / 'photos' / name},{LABELS[name]}" for name in NAMES[:5]]
    relative = [f"../photos/{name},{LABELS[name]}" for name in NAMES[5:]]
    assert labels_in(opened(table(tmp_path / "lists", "path,label", *absolute, *relative))) == LABELS


def test_a_folder_that_a_manifest_does_not_need_may_be_unreadable(tmp_path: Path):
    save_images(tmp_path)
    make_folder_that_cannot_be_read(tmp_path / "lost+found")
    paths = (
        table(tmp_path, "path,label", "cat0.png,cat", "dog0.png,dog"),
        coco_of(tmp_path, "/s/cat0.png", "/s/dog0.png"),
    )
    for path in paths:
        assert any(note.startswith("left out: 1 folder that can't be read (lost+found/") for note in opened(path).notes)


def test_the_weights_that_are_said_are_those_of_training(tmp_path: Path):
    save_images(tmp_path)
    for weights, said in (
        ({"cat0.png": "5"}, "images weigh 1 to 5 in training"),
        (dict.fromkeys(NAMES, "5"), "every image weighs 5 in training, so that weights change nothing"),
        ({"cat0.png": "0.5", "cat4.png": "9"}, "images weigh 0.5 to 1 in training"),
    ):
        rows = [f"{name},{LABELS[name]},{weights.get(name, '')},{'test' * (name[3] == '4')}" for name in NAMES]
        assert said in opened(table(tmp_path, "path,label,weight,split", *rows)).notes


def test_images_that_a_manifest_does_not_name_are_counted_and_a_file_named_twice_is_one(tmp_path: Path):
    save_images(tmp_path)
    rows = [*(f"{name},{LABELS[name]}" for name in NAMES[:-1]), "./cat0.png,cat"]
    content = opened(table(tmp_path, "path,label", *rows))
    assert len(labels_in(content)) == 9
    assert content.notes == (
        "left out: 1 row that names a file again (cat0.png)",
        "left out: 1 image that the manifest doesn't name (dog4.png)",
    )


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("cat9.png,cat,,,", r"name a file that exists, but 1 row doesn't \(line 2, cat9.png\); add the files"),
        (",cat,,,", r"name a file, but 1 row doesn't \(line 2\); write its path"),
        ("cat0.png,,,,", r"have a label, but 1 row doesn't \(line 2, cat0.png\)"),
        ("cat0.png,dog,,,", r"the label that it has elsewhere, but .*\(line 3, cat0.png: dog and cat\)"),
        ("cat0.png,cat,test,,", r"the split that it is in elsewhere, but .*\(line 3, cat0.png: test and none\)"),
        ("cat0.png,cat,,patient 1,", r"the group and weight that it has .*\(line 3, cat0.png: patient 1 and none\)"),
        ("cat0.png,cat,,,0.5", r"the group and weight that it has elsewhere, but .*\(line 3, cat0.png: 0.5 and none\)"),
        ("cat0.png,animals\\b.png,,,", r"a class's name as label, not a path, but .* or exchange the columns"),
        ("cat0.png,cat,holdout,,", r"say train, validation or test as split, or nothing, but .*: holdout\); correct"),
        ("cat0.png,cat,,,-1", r"have a weight of 0 or more, but .*: -1\)"),
        ("cat0.png,cat,,,nan", r"have a weight of 0 or more, but .*: nan\)"),
        ("cat0.png,photos/cat0.png,,,", r"a class's name as label, not a path, but .* or exchange the columns"),
        ("cat0.png,../cat,,,", "a class's name as label, not a path"),
        ("cat0.png,cat", "but line 2 has 2 columns, and its first line 5"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named_with_what_to_do(tmp_path: Path, row: str, rule: str):
    save_images(tmp_path)
    path = table(tmp_path, "path,label,split,group,weight", row, *(f"{name},{LABELS[name]},,," for name in NAMES))
    with pytest.raises(DataNotFound, match=rule) as refusal:
        prepare(settings_for(path), tmp_path / "cache")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("column", "value", "meant"),
    [
        ("splits", "train", "split"),
        ("Subset", "train", "split"),
        ("set", "train", "split"),
        ("partition", "a", "split"),
        ("spilt", "train", "split"),
        ("groups", "a", "group"),
        ("group_id", "a", "group"),
        ("weights", "1", "weight"),
        ("weigth", "1", "weight"),
    ],
)
def test_a_column_that_is_nearly_called_split_group_or_weight_is_refused(
    tmp_path: Path, column: str, value: str, meant: str
):
    save_images(tmp_path)
    path = table(tmp_path, f"path,label,{column}", *(f"{name},{LABELS[name]},{value}" for name in NAMES))
    with pytest.raises(DataNotFound, match=f"must be called {meant}, but one is called '{column}', did you mean"):
        opened(path)


def test_a_column_of_splits_by_another_name_is_refused_and_one_beside_the_split_is_said(tmp_path: Path):
    save_images(tmp_path)
    rows = [f"{name},{LABELS[name]},{'test' if name[3] == '4' else 'train'}" for name in NAMES]
    with pytest.raises(DataNotFound, match="must be called split, but one is called 'fold', did you mean"):
        opened(table(tmp_path, "path,label,fold", *rows))
    path = table(tmp_path, "path,label,fold,split,height", *(f"{row},train,8" for row in rows))
    assert opened(path).notes[0] == "2 columns of labels.csv are not used (fold, height)"


def test_a_columns_of_folds_by_number_is_only_said(tmp_path: Path):
    save_images(tmp_path)
    path = table(tmp_path, "path,label,fold", *(f"{name},{LABELS[name]},{name[3]}" for name in NAMES))
    assert opened(path).notes[0] == "1 column of labels.csv is not used (fold)"


def test_a_split_a_group_and_a_weight_are_no_classes_of_a_table_with_a_column_for_each_class(tmp_path: Path):
    save_images(tmp_path)
    with pytest.raises(DataNotFound, match="has no column of labels, but path, y, weight"):
        opened(table(tmp_path, "path,y,weight", *(f"{name},{int(name < 'd')},1" for name in NAMES)))
    with pytest.raises(DataNotFound, match="must be called weight, but one is called 'weights'"):
        opened(table(tmp_path, "path,y,weights", *(f"{name},{int(name < 'd')},1" for name in NAMES)))
    rows = [f"{name},{int(name < 'd')},{int(name > 'd')},{'test' if name[3] == '4' else 'train'}" for name in NAMES]
    content = opened(table(tmp_path, "path,cat,dog,split", *rows))
    assert labels_in(content) == LABELS
    assert content.test is not None
    assert len(content.test.labels) == 2


def test_a_group_is_refused_where_nothing_would_read_it(tmp_path: Path):
    for name, export in (("via", via_csv), ("coco", coco), ("cvat", cvat_imagenet)):
        with pytest.raises(InvalidSettings, match=r"data\.group must be a column of a CSV manifest"):
            opened(export(tmp_path / name), group="patient")
    with pytest.raises(InvalidSettings, match=r"data\.group must be a column of the manifest, but is 'patient', and"):
        opened(roboflow_csv(tmp_path / "roboflow"), group="patient")


def test_only_a_line_feed_ends_a_line_of_cvats(tmp_path: Path):
    path = cvat_imagenet(tmp_path)
    (tmp_path / "images" / "cat0.png").rename(tmp_path / "images" / "cat\u20280.png")
    (path / "train.txt").write_text((path / "train.txt").read_text().replace("cat0", "cat\u20280"))
    assert labels_in(opened(path)).keys() == {*NAMES, "cat\u20280.png"} - {"cat0.png"}


@pytest.mark.parametrize("label", ["-1", "dog"])
def test_a_label_of_cvats_that_is_no_number_is_no_part_of_the_files_name(tmp_path: Path, label: str):
    path = cvat_imagenet(tmp_path)
    (path / "val.txt").write_text(f"cat3.png 0\ndog3.png {label}\n")
    with pytest.raises(
        DataNotFound, match=f"line 2 names class '{label}', and must number one of the 2 of synsets.txt"
    ):
        opened(path)


def test_many_broken_rows_are_counted_and_a_few_named(tmp_path: Path):
    path = table(tmp_path, "path,label", *(f"no{number}.png,cat" for number in range(100)))
    with pytest.raises(DataNotFound, match=r"but 100 rows don't \(line 2, no0.png; .*; and 97 more\)"):
        outline(settings_for(path))


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ((), "its first line is: empty"),
        (("cat0.png,cat", "cat1.png,cat"), "its first line is: cat0.png,cat"),
        (("path,label",), "must name images, but names none"),
        (("path,label", "cat0.png,cat", "cat1.png,cat"), "at least 2 classes, but holds 1, 'cat'"),
        (
            ("path,label,split", "cat0.png,cat,train", "dog0.png,dog,test"),
            r"1 class of the test split \(dog\) has none",
        ),
        (("path,label,weight", "cat0.png,cat,0", "dog0.png,dog,0"), "must weigh more than 0, but none does"),
        (("path,label,group,split", "cat0.png,cat,a,train", "cat1.png,cat,a,test"), "at least 2 classes"),
        (
            ("path,label,group,split", "cat0.png,cat,a,train", "dog0.png,dog,b,train", "cat1.png,cat,a,test"),
            r"1 group of labels.csv \(manifest\) \(a\) is in both train and test",
        ),
        (("path,label", "cat0.png,cat", "dog0.png,dog"), "needs a class with at least 3 images"),
    ],
)
def test_a_table_that_makes_no_data_set_is_one_clear_line(tmp_path: Path, lines: tuple[str, ...], rule: str):
    save_images(tmp_path)
    with pytest.raises(DataNotFound, match=rule) as refusal:
        outline(settings_for(table(tmp_path, *lines)))
    assert "\n" not in str(refusal.value)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(DataNotFound, match=r"labels.csv' can't be read \(No such file"):
        outline(settings_for(tmp_path / "labels.csv"))
    (tmp_path / "labels.csv").write_bytes("path,label\ncat0.png,caf\u00e9".encode("latin-1"))
    with pytest.raises(DataNotFound, match="must be UTF-8, but isn't"):
        outline(settings_for(tmp_path / "labels.csv"))
    with pytest.raises(DataNotFound, match="is a folder without an export that is known here"):
        outline(settings_for(tmp_path))
    with pytest.raises(DataNotFound, match=r"annotation tool's form, but .*JSON"):
        outline(settings_for(table(tmp_path, "{", name="labels.json")))
    with pytest.raises(InvalidSettings, match=r"data.group must be a column of the manifest, but is 'camera', and"):
        outline(settings_for(table(tmp_path, "path,label", "a.png,b"), group="camera"))


# What makes a manifest of some form, in any arrangement.
WORDS = st.sampled_from(
    "path label image choice filename file_attributes data annotations categories images id name file_name image_id "
    'category_id result value choices cat dog cat0.png dog0.png 0 1 {"a":1} "'.split()
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def some_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    save_images(folder)
    return folder


def read_or_refused(path: Path) -> None:
    text = ""
    try:
        opened(path)
    except DataNotFound as refusal:
        text = str(refusal)
    assert "\n" not in text


@settings(deadline=None)
@given(lines=st.lists(st.lists(WORDS | st.text(max_size=4), max_size=4).map(",".join), max_size=4).map("\n".join))
def test_any_table_is_read_or_refused_in_one_line(some_images: Path, lines: str):
    (some_images / "any.csv").write_text(lines, encoding="utf-8", errors="replace")
    read_or_refused(some_images / "any.csv")


@settings(deadline=None)
@given(document=JSON_VALUES)
def test_any_json_is_read_or_refused_in_one_line(some_images: Path, document: object):
    (some_images / "any.json").write_text(json.dumps(document))
    read_or_refused(some_images / "any.json")


def test_a_manifest_that_is_a_device_and_a_name_that_is_too_long_are_refused(tmp_path: Path):
    with pytest.raises(DataNotFound, match="'/dev/zero' must be a file, but is something else"):
        outline(settings_for(Path("/dev/zero")))
    for path in (tmp_path / (5000 * "x"), Path("a\0b")):
        with pytest.raises(DataNotFound, match="can't be read"):
            outline(settings_for(path))
        with pytest.raises(DataNotFound, match="doesn't exist: correct"):
            outline(DataSettings(dataset=f"imagefolder:{path}", image_size=8, channels=1))
    with pytest.raises(DataNotFound, match="must name a file that exists, but 2 rows don't"):
        outline(settings_for(table(tmp_path, "path,label", f"{5000 * 'x'}.png,a", "a\0b.png,b")))


# --- what annotation tools export -------------------------------------------------------------------------------


def csv_file(path: Path, *rows: tuple[object, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def json_file(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def label_studio_csv(folder: Path) -> Path:
    save_images(folder / "media", tuple(f"{number:08x}-{name}" for number, name in enumerate(NAMES)))
    header = ("image", "id", "choice", "annotator", "annotation_id", "created_at", "updated_at", "lead_time")
    rows = [
        (f"/data/upload/1/{number:08x}-{name}", number, LABELS[name], 1, number, "2024-05-01", "2024-05-01", 2.5)
        for number, name in enumerate(NAMES)
    ]
    return csv_file(folder / "project-1.csv", header, *rows)


def label_studio_json_min(folder: Path) -> Path:
    save_images(folder)
    tasks = [
        {"image": f"/data/local-files/?d={name}", "id": 1, "choice": LABELS[name], "annotator": 1, "annotation_id": 1}
        for name in NAMES
    ]
    return json_file(folder / "project-1.json", tasks)


def label_studio_json(folder: Path) -> Path:
    save_images(folder)

    def task(name: str) -> dict[str, object]:
        choice = {"value": {"choices": [LABELS[name]]}, "from_name": "choice", "to_name": "image", "type": "choices"}
        annotations = [
            {"id": 1, "was_cancelled": False, "result": [choice]},
            {"id": 2, "was_cancelled": True, "result": []},
        ]
        return {"id": 1, "annotations": annotations, "data": {"image": f"https://server/data/upload/2/{name}"}}

    unlabelled = {"id": 99, "annotations": [], "data": {"image": "/data/upload/2/later.png"}}
    return json_file(folder / "project-2.json", [*map(task, NAMES), unlabelled])


def via_csv(folder: Path) -> Path:
    save_images(folder)
    columns = "filename file_size file_attributes region_count region_id region_shape_attributes region_attributes"
    rows = [(name, 99, json.dumps({"animal": LABELS[name]}), 0, 0, "{}", "{}") for name in NAMES]
    return csv_file(folder / "via_export_csv.csv", tuple(columns.split()), *rows)


def via_json(folder: Path) -> Path:
    save_images(folder)
    files = {
        f"{name}99": {
            "filename": name,
            "size": 99,
            "regions": [],
            "file_attributes": {"caption": "a photo", "class": {LABELS[name]: True}},
        }
        for name in NAMES
    }
    return json_file(folder / "via_export_json.json", files)


def roboflow_csv(folder: Path) -> Path:
    for split, numbers in (("train", "012"), ("valid", "3"), ("test", "4")):
        names = tuple(name for name in NAMES if name[3] in numbers)
        save_images(folder / split, names)
        rows = [f"{name}, {int(LABELS[name] == 'cat')}, {int(LABELS[name] == 'dog')}" for name in names]
        table(folder / split, "filename, cat, dog", *rows, name="_classes.csv")
    return folder


def coco(folder: Path) -> Path:
    save_images(folder / "images")
    document = {
        "info": {"description": "pets"},
        "images": [{"id": 7 + at, "file_name": name, "width": 8, "height": 8} for at, name in enumerate(NAMES)],
        "categories": [{"id": 0, "name": "pets"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": at, "image_id": 7 + at, "category_id": 1 + (LABELS[name] == "dog")} for at, name in enumerate(NAMES)
        ],
    }
    return json_file(folder / "instances.json", document)


def cvat_imagenet(folder: Path) -> Path:
    save_images(folder / "images")
    table(folder, "cat", "dog", name="synsets.txt")
    for split, numbers in (("train", "012"), ("val", "3"), ("test", "4")):
        rows = [f"{name} {int(LABELS[name] == 'dog')}" for name in NAMES if name[3] in numbers]
        table(folder, *rows, name=f"{split}.txt")
    return folder


WITHOUT_SPLITS = (label_studio_csv, label_studio_json_min, label_studio_json, via_csv, via_json, coco)
WITH_SPLITS = (roboflow_csv, cvat_imagenet)


@pytest.mark.parametrize("export", [*WITHOUT_SPLITS, *WITH_SPLITS])
def test_what_annotation_tools_export_is_read(tmp_path: Path, export):
    content = opened(export(tmp_path / "export"))
    assert {name[-8:]: label for name, label in labels_in(content).items()} == LABELS


@pytest.mark.parametrize("export", WITH_SPLITS)
def test_the_splits_of_an_export_are_used(tmp_path: Path, export):
    chosen = settings_for(export(tmp_path / "export"))
    info = prepare(chosen, tmp_path / "cache")
    assert (info.train_images, info.validation_images, info.test_images) == (6, 2, 2)
    assert load(chosen, tmp_path / "cache").validation.labels.tolist() == [0, 1]


def test_an_image_that_nobody_labelled_is_left_out_and_said(tmp_path: Path):
    notes = opened(label_studio_json(tmp_path)).notes
    assert "left out: 1 image without a label (/data/upload/2/later.png)" in notes
    save_images(tmp_path, ("later.png",))
    left_out = [note for note in opened(tmp_path / "project-2.json").notes if note.startswith("left out")]
    assert left_out == ["left out: 1 image without a label (/data/upload/2/later.png)"]  # it isn't said twice
    unlabelled = [{"image": name, "choice": {"choices": []}} for name in NAMES]
    with pytest.raises(DataNotFound, match="must have labels, but its 10 images have none; annotate them"):
        opened(json_file(tmp_path / "unlabelled.json", unlabelled))


def test_one_file_by_two_names_has_one_label_and_one_split(tmp_path: Path):
    save_images(tmp_path)
    (tmp_path / "link.png").symlink_to("cat0.png")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "cat0.png")
    rows = [f"{name},{LABELS[name]},train" for name in NAMES]
    for name in (str(tmp_path / "cat0.png"), "link.png", "hard.png", f"../{tmp_path.name}/cat0.png"):
        with pytest.raises(
            DataNotFound, match=r"must have one label, .* 1 file has two \(cat0.png and .*: cat and dog\)"
        ):
            opened(table(tmp_path, "path,label,split", *rows, f"{name},dog,train"))
        with pytest.raises(DataNotFound, match=r"must have one split, .*: train and test\)"):
            opened(table(tmp_path, "path,label,split", *rows, f"{name},cat,test"))
    content = opened(table(tmp_path, "path,label,split", *rows, "link.png,cat,train"))
    assert len(content.train.labels) == 10
    assert content.notes == ("left out: 1 further name of a file that is listed (link.png)",)


def coco_of(folder: Path, *names: str) -> Path:
    document = {
        "images": [{"id": at, "file_name": name} for at, name in enumerate(names)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [{"id": at, "image_id": at, "category_id": at % 2} for at in range(len(names))],
    }
    return json_file(folder / "coco.json", document)


@pytest.mark.parametrize("path", ["img:1.png", "other/1.png", "images/other/1.png", "1.png#2", "1.png?v=2"])
def test_a_row_never_gets_the_image_of_another(tmp_path: Path, path: str):
    save_images(tmp_path, ("im/1.png", "im/2.png"))
    (tmp_path / "other").mkdir()
    (tmp_path / "images" / "other").mkdir(parents=True)
    with pytest.raises(DataNotFound, match="must name a file that exists, but 1 row doesn't"):
        opened(coco_of(tmp_path, path, "im/2.png"))


@pytest.mark.parametrize(
    "path",
    ["s3://pets/raw/my%20cat.png", "/srv/pets/my cat.png", "C:\\pets\\my cat.png", "gone/my cat.png", "my cat.png"],
)
def test_files_that_are_found_by_their_names_alone_are_said(tmp_path: Path, path: str):
    save_images(tmp_path, ("im/my cat.png", "im/2.png"))
    content = opened(coco_of(tmp_path, path, "im/2.png"))
    assert labels_in(content) == {"my cat.png": "cat", "2.png": "dog"}
    assert content.notes[0] == "1 file found by the name alone (im/my cat.png)"


@pytest.mark.parametrize(
    "server", ["/home/ann/pets/images/", "s3://bucket/images/", "C:\\ann\\images\\", "images\\", ""]
)
def test_files_that_are_numbered_by_class_are_found_by_the_ends_of_their_paths(tmp_path: Path, server: str):
    names = [f"{kind}/{number}.png" for number in range(3) for kind in ("cat", "dog")]
    save_images(tmp_path / "images", tuple(names))
    paths = [server + name.replace("/", "\\" if "\\" in server else "/") for name in names]
    content = opened(coco_of(tmp_path, *paths))
    assert content.train.details is not None
    assert [name.removeprefix("images/") for name in content.train.details.names] == names
    assert [content.class_names[label] for label in content.train.labels] == ["cat", "dog"] * 3
    said = (
        "6 files found by the end of the path alone (images/cat/0.png, images/dog/0.png, images/cat/1.png and 3 more)"
    )
    assert content.notes == ((said,) if server not in ("", "images\\") else ())


def test_a_path_that_ends_as_several_images_do_and_one_whose_file_is_anothers_are_refused(tmp_path: Path):
    save_images(tmp_path, ("cat/1.png", "dog/1.png", "dog/2.png"))
    with pytest.raises(
        DataNotFound, match=r"must name one file, but 1 row doesn't \(image 1, /srv/1.png: cat/1.png, dog/"
    ):
        opened(coco_of(tmp_path, "/srv/cat/1.png", "/srv/1.png"))
    with pytest.raises(DataNotFound, match=r"name a file that exists, but 1 row doesn't \(image 0, /srv/owl/2.png\)"):
        opened(coco_of(tmp_path, "/srv/owl/2.png", "/srv/dog/2.png", "/srv/cat/1.png"))


def test_what_a_tool_left_out_of_names_is_found_and_a_servers_paths_are_looked_for_in_few_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_images(tmp_path / "images", NAMES)
    asked: list[Path] = []
    monkeypatch.setattr(file_search, "_is_file", lambda path: asked.append(path) or path.is_file())
    assert labels_in(opened(coco_of(tmp_path, "cat0", "images/dog0"))) == {"cat0.png": "cat", "dog0.png": "dog"}
    del asked[:]
    opened(coco_of(tmp_path, *(f"/srv/pets/{name}" for name in NAMES)))
    assert len(asked) <= 3 * len(NAMES)


def extras_of(name: str) -> dict[str, object]:
    splits = ("train", "train", "valid", "test", "")
    return {"split": splits[int(name[3])], "Group": int(name[3]), "weight": 2 + int(name[3]), "caption": "a pet"}


def task_of(name: str, where: str) -> dict[str, object]:
    choice = {"result": [{"value": {"choices": [LABELS[name]]}}]}
    task: dict[str, object] = {"id": 1, "data": {"image": name}, "annotations": [choice]}
    if where == "data":
        return {**task, "data": {**extras_of(name), "url": name}}
    return {**task, "meta": extras_of(name)} if where == "meta" else {**task, **extras_of(name), "meta": {"caption": 1}}


def via_json_of(key: str) -> object:
    def file(name: str) -> dict[str, object]:
        of_file = {"filename": name, "regions": [], "file_attributes": {"label": LABELS[name]}}
        if key == "file_attributes":
            return {
                **of_file,
                key: {"label": LABELS[name], **extras_of(name), "split": {extras_of(name)["split"]: True}},
            }
        return {**of_file, **extras_of(name)}

    return {name: file(name) for name in NAMES}


def coco_document(image_key: str = "", annotation_key: str = "") -> dict[str, list[dict[str, object]]]:
    def also(name: str, key: str | None) -> dict[str, object]:
        return {} if not key else extras_of(name) if key == "itself" else {key: extras_of(name)}

    return {
        "images": [{"id": at, "file_name": name, **also(name, image_key)} for at, name in enumerate(NAMES)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [
            {"id": at, "image_id": at, "category_id": int(name > "d"), **also(name, annotation_key)}
            for at, name in enumerate(NAMES)
        ],
    }


EXTRAS_IN_JSON = {
    "Label Studio, data": [task_of(name, "data") for name in NAMES],
    "Label Studio, meta": [task_of(name, "meta") for name in NAMES],
    "Label Studio, task": [task_of(name, "task") for name in NAMES],
    "Label Studio, JSON-MIN": [
        {"id": 1, "choice": LABELS[name], "annotation_id": 1, "lead_time": 2.5, **extras_of(name), "photo": name}
        for name in NAMES
    ],
    "VIA, attributes": via_json_of("file_attributes"),
    "VIA, files": via_json_of("itself"),
    "COCO, images": coco_document("itself"),
    "COCO, attributes": coco_document("attributes"),
    "COCO, annotations": coco_document("", "itself"),
}


def check_extras(content: SourceImages, unused: str) -> None:
    """Check that splits, groups and weights are those of `extras_of`, and that what isn't used is said."""
    assert labels_in(content) == LABELS
    assert (len(content.train.labels), len(content.test.labels if content.test else ())) == (8, 2)
    assert content.train.details is not None
    assert content.train.details.validation is not None
    assert content.train.details.validation.tolist() == [False] * 6 + [True] * 2
    assert set(content.train.details.groups or ()) == {"0", "1", "2", "4"}
    assert content.train.details.weights is not None
    assert content.train.details.weights.tolist() == [2, 3, 6, 2, 3, 6, 4, 4]
    assert unused in content.notes


@pytest.mark.parametrize("form", EXTRAS_IN_JSON)
def test_splits_groups_and_weights_in_json_are_used_and_other_keys_are_said(tmp_path: Path, form: str):
    save_images(tmp_path)
    path = json_file(tmp_path / "a.json", EXTRAS_IN_JSON[form])
    noun = "file attribute" if form.startswith("VIA") else "key"
    check_extras(opened(path), f"1 {noun} of a.json is not used (caption)")
    path.write_text(path.read_text().replace('"split"', '"splits"'))
    with pytest.raises(
        DataNotFound, match=rf"the {noun} of each image's split .* one is called 'splits', did you mean"
    ):
        opened(path)


@pytest.mark.parametrize("in_attributes", [True, False])
def test_splits_groups_and_weights_of_vias_table_are_used_and_other_columns_are_said(
    tmp_path: Path, in_attributes: bool
):
    columns = "filename file_size file_attributes region_count region_id region_shape_attributes region_attributes"

    def written(called: str) -> Path:
        rows = []
        for name in NAMES:
            extras = extras_of(name)
            extras[called] = extras.pop("split")
            attributes = {"label": LABELS[name], **(extras if in_attributes else {})}
            rows.append(
                (name, 99, json.dumps(attributes), 0, 0, "{}", "{}", *(() if in_attributes else extras.values()))
            )
        more = () if in_attributes else ("Group", "weight", "caption", called)
        return csv_file(tmp_path / "via.csv", (*columns.split(), *more), *rows)

    save_images(tmp_path)
    check_extras(opened(written("split")), "1 file attribute of via.csv is not used (caption)")
    with pytest.raises(
        DataNotFound, match=r"the file attribute of each image's split .* one is called 'subset', did you"
    ):
        opened(written("subset"))


def test_keys_of_label_studio_that_are_meant_as_a_split_are_refused(tmp_path: Path):
    save_images(tmp_path)
    tasks = [{"image": name, "choice": LABELS[name], "subset": "train"} for name in NAMES]
    with pytest.raises(DataNotFound, match=r"the key of each image's split .* one is called 'subset'"):
        opened(json_file(tmp_path / "a.json", tasks))


@pytest.mark.parametrize("table", [True, False])
def test_label_studios_owner_names_image_and_label(tmp_path: Path, table: bool):
    def export(**more: str) -> Path:
        rows = [
            {
                "annotation_id": 1,
                "annotator": 1,
                "animal": LABELS[name],
                "id": 1,
                **more,
                "photo": f"/data/local-files/?d={name}",
            }
            for name in NAMES
        ]
        if table:
            return csv_file(tmp_path / "a.csv", tuple(rows[0]), *(tuple(row.values()) for row in rows))
        return json_file(tmp_path / "a.json", rows)

    save_images(tmp_path)
    assert labels_in(opened(export(split="train"))) == LABELS
    with pytest.raises(DataNotFound, match=r"the label isn't clear \(animal, patient\); call it label"):
        opened(export(patient="7"))


def test_a_relation_is_no_label_and_a_task_that_was_never_annotated_has_none(tmp_path: Path):
    path = label_studio_json(tmp_path)
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"][0]["result"] += [
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
        {"type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["nose"]}},
    ]
    del tasks[1]["annotations"]
    content = opened(json_file(path, tasks))
    assert labels_in(content) == {name: label for name, label in LABELS.items() if name != "cat1.png"}
    unlabelled = "2 images without a label (https://server/data/upload/2/cat1.png, /data/upload/2/later.png)"
    assert [note for note in content.notes if note.startswith("left out")] == [f"left out: {unlabelled}"]


ODD_RECORDS = [
    (
        "COCO",
        ("annotations", 3, "image_id", 99),
        r"each annotation of .* the id of an image that .* \(annotation 3: 99\)",
    ),
    ("COCO", ("annotations", 3, "image_id", None), r"the id of an image that .* \(annotation 3: none\); correct it"),
    (
        "COCO",
        ("annotations", 3, "category_id", 7),
        r"the id of a category that there is .* \(annotation 3: 7\); correct",
    ),
    ("COCO", ("annotations", 3, None, "x"), r"but 1 annotation doesn't \(annotation at place 4: none\)"),
    ("COCO", ("images", 3, "id", 4), r"an id of its own, but 2 image records don't \(image 4, cat3.png; image 4, cat4"),
    ("COCO", ("images", 3, "file_name", None), r"have an id and a file_name, but 1 image record doesn't \(image 3\)"),
    ("COCO", ("images", 3, "id", []), r"have an id and a file_name, but 1 image record doesn't \(image at place 4\)"),
    ("COCO", ("categories", 1, "name", None), r"have an id and a name, but 1 category record doesn't \(category 1\)"),
    ("COCO", ("annotations", None, None, {}), "it is COCO's, but has no list of annotations"),
    ("VIA", ("cat3.png", None, "filename", None), r"a filename and file_attributes, but 1 file .* \(image 4\)"),
    ("VIA", ("cat3.png", None, "file_attributes", "cat"), r"a filename and file_attributes, but 1 file .* \(image 4\)"),
    (
        "VIA",
        ("cat3.png", "file_attributes", "label", ["cat"]),
        r'ticked boxes as label, .* \(image 4, cat3.png: \["cat"\]\)',
    ),
    ("COCO", ("annotations", 3, "image_id", "3"), r'the id of an image that .* \(annotation 3: "3"\); correct it'),
    ("tasks", (3, None, None, "x"), r"each task of .* must be an object in braces, but 1 task doesn't \(task 4\)"),
    ("tasks", (3, None, "data", "x"), r"must have its data in braces, but 1 task doesn't \(task 4\)"),
    (
        "tasks",
        (3, "data", "image", None),
        r"must name its image, but 1 task doesn't \(task 4\); write its path as image",
    ),
    ("tasks", (3, None, "annotations", 1.5), r"annotations with results, as in a full .* \(task 4, cat3.png\)"),
    ("tasks", (3, None, "annotations", [5]), r"annotations with results, as in a full .* \(task 4, cat3.png\)"),
    (
        "choices",
        (3, None, "choice", [{"x": 1}]),
        r'must have text as choice, but .* \(task 4, cat3.png: \[{"x": 1}\]\)',
    ),
    ("choices", (3, None, "image", None), r"must name its image, but 1 task doesn't \(task 4\)"),
]


def whole_document(form: str) -> object:
    return {
        "COCO": coco_document(),
        "VIA": via_json_of("itself"),
        "tasks": [{**task_of(name, "meta"), "meta": {}} for name in NAMES],
        "choices": [{"image": name, "choice": LABELS[name]} for name in NAMES],
    }[form]


@pytest.mark.parametrize(("form", "change", "rule"), ODD_RECORDS)
def test_an_odd_record_is_named_with_its_rule(some_images: Path, form: str, change: tuple[object, ...], rule: str):
    document = json.loads(json.dumps(whole_document(form)))
    *steps, value = change
    *steps, last = [step for step in steps if step is not None]
    record = document
    for step in steps:
        record = record[step]
    record[last] = value
    with pytest.raises(DataNotFound, match=rule) as refusal:
        opened(json_file(some_images / "odd.json", document))
    assert str(refusal.value).isprintable()


@settings(deadline=None, max_examples=80)
@given(data=st.data(), form=st.sampled_from(("COCO", "VIA", "tasks", "choices")))
def test_an_export_with_any_value_somewhere_is_read_or_refused_in_one_line(
    some_images: Path, data: st.DataObject, form: str
):
    record = document = json.loads(json.dumps(whole_document(form)))
    while True:
        places = list(record) if isinstance(record, dict) else list(range(len(record)))
        place = data.draw(st.sampled_from(places))
        if not isinstance(record[place], dict | list) or not record[place] or data.draw(st.booleans()):
            break
        record = record[place]
    record[place] = data.draw(JSON_VALUES)
    read_or_refused(json_file(some_images / "any.json", document))


def test_what_annotations_of_an_image_say_of_it_must_agree(tmp_path: Path):
    save_images(tmp_path)
    document = coco_document("", "itself")
    document["annotations"].append({**document["annotations"][3], "id": 99, "split": "train"})
    rule = r"what its other annotations say, but 1 annotation doesn't \(annotation 99: split train and test\)"
    with pytest.raises(DataNotFound, match=rule):
        opened(json_file(tmp_path / "a.json", document))


@pytest.mark.parametrize("form", ["choices", "coco"])
def test_an_image_with_two_labels_is_refused(tmp_path: Path, form: str):
    if form == "choices":
        save_images(tmp_path)
        both = {"image": "cat0.png", "choice": {"choices": ["cat", "dog"]}}
        path = json_file(tmp_path / "a.json", [both, {"image": "dog0.png", "choice": "dog"}])
    else:
        path = coco(tmp_path)
        document = json.loads(path.read_text())
        document["annotations"].append({"id": 99, "image_id": 7, "category_id": 2})
        json_file(path, document)
    with pytest.raises(
        DataNotFound, match=r"must have one label, but 1 row doesn't \(image [17], cat0.png: cat, dog\)"
    ):
        outline(settings_for(path))


def test_a_moved_manifest_with_its_images_is_the_same_data(tmp_path: Path):
    def fingerprint(folder: Path) -> str:
        save_images(folder)
        path = table(folder, "path,label", *(f"{name},{LABELS[name]}" for name in NAMES))
        return prepare(settings_for(path), tmp_path / "cache").fingerprint

    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert settings_for(tmp_path / "a").of_content() == settings_for(tmp_path / "b").of_content()
    assert np.isfinite(load(settings_for(tmp_path / "a" / "labels.csv"), tmp_path / "cache").info.mean[0])
