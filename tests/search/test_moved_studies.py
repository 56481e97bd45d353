"""Studies whose folder, files or images were moved or copied: everything works from the new place, and a copy alone."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image
from typer.testing import CliRunner

import condensery
from search import study_folders
from search.launch import launch
from search.loop.callbacks import SilentCallback
from search.pricing.pricer import Target
from search.results.picking.picked import Picked, pick
from search.settings import StudySettings
from search.store import reader, tables
from search.store.connection.database import open_for_reading, open_for_writing, upgrade
from search.store.store import StudyStore
from search.study import open_study
from search.study_file import settings_from
from space.errors import CheckpointCorrupt, DataNotFound, FrozenSettings, ReadOnlyFolder
from tests.search.earlier_databases import take_back
from tests.search.tiny_studies import Bench, CountingProbe, document, sqlite_url, tiny_settings
from tests.search.trained_study import trained_study
from workers.files import file_hash
from workers.images.cache import prepare

RUNNER = CliRunner()


def everything_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_hash(path) for path in folder.rglob("*") if path.is_file()}


def text_recorded(database: Path) -> str:
    """Everything that a database holds, as text."""
    connection = sqlite3.connect(database)
    text = "\n".join(connection.iterdump())
    connection.close()
    return text


def image_folder(folder: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            Image.fromarray(pixels.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


def finished_study(folder: Path) -> Path:
    """A study of one network on an image folder beside its database; returns the folder."""
    folder.mkdir()
    images = image_folder(folder / "images")
    data = {"dataset": f"imagefolder:{images}", "image_size": 8, "channels": 1}
    store = trained_study(folder, CountingProbe(), data=data)
    info = prepare(settings_of(store).data, folder / "study-files" / ".images")
    store.set_data_info(info.to_dict())
    store.engine.dispose()
    return folder


def settings_of(store: StudyStore) -> StudySettings:
    return settings_from(reader.find_study(store.engine, "tiny").settings, "the stored settings")


def picked_in(folder: Path) -> Picked:
    engine = open_for_writing(sqlite_url(folder))
    study = reader.find_study(engine, "tiny")
    settings = settings_from(study.settings, "the stored settings")
    cache = study_folders.cache_folder(settings, sqlite_url(folder))
    targets = (Target("host", CountingProbe()),)
    try:
        return pick(StudyStore(engine, study.id), study, settings.search_budget(), targets, cache)
    finally:
        engine.dispose()


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return finished_study(tmp_path / "original")


# -- the study's folder --


def test_nothing_recorded_names_the_folder_that_holds_it(original: Path):
    assert str(original) not in text_recorded(original / "study.db")


def test_a_moved_study_is_picked_exported_and_found_sound_in_its_new_place(original: Path, tmp_path: Path):
    moved = original.rename(tmp_path / "moved")
    for path in picked_in(moved).files:
        assert path.is_relative_to(moved)
    out = tmp_path / "exported.onnx"
    options = ["tiny", "--storage", sqlite_url(moved)]
    assert RUNNER.invoke(condensery.app, ["export", "0", *options, "--out", str(out)]).exit_code == 0
    assert out.read_bytes() == (moved / "study-files/tiny/trial-00000/model.onnx").read_bytes()
    result = RUNNER.invoke(condensery.app, ["doctor", *options, "--dry-run", "--json"])
    assert not {"file", "folder"} & {finding["check"] for finding in json.loads(result.stdout)["findings"]}


def test_using_a_copy_leaves_the_original_untouched(original: Path, tmp_path: Path):
    shutil.copytree(original, tmp_path / "copy")
    before = everything_in(original)
    assert all(path.is_relative_to(tmp_path / "copy") for path in picked_in(tmp_path / "copy").files)
    RUNNER.invoke(condensery.app, ["doctor", "tiny", "--storage", sqlite_url(tmp_path / "copy")])
    assert (
        RUNNER.invoke(condensery.app, ["delete", "tiny", "--yes", "--storage", sqlite_url(tmp_path / "copy")]).exit_code
        == 0
    )
    assert not (tmp_path / "copy/study-files/tiny").exists()
    assert everything_in(original) == before


def test_a_database_that_has_two_names_has_one_folder_of_files(tmp_path: Path):
    (tmp_path / "real.db").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link.db").symlink_to(tmp_path / "real.db")
    roots = {
        study_folders.files_root(tiny_settings(), f"sqlite:///{tmp_path / name}")
        for name in ("real.db", "elsewhere/link.db")
    }
    assert roots == {tmp_path / "real-files"}


# -- files kept elsewhere --


def owned_elsewhere(tmp_path: Path) -> tuple[Path, Path]:
    """A study whose files are on another disk than its database: (the database's folder, the files')."""
    (tmp_path / "original").mkdir()
    files = tmp_path / "disk"
    bench = Bench(tmp_path / "original", study__files=str(files))
    bench.open()
    bench.close()
    bench.files.mkdir(parents=True)
    study_folders.own(bench.files, bench.url)
    return bench.folder, files


def stored_in(folder: Path):
    engine = open_for_reading(sqlite_url(folder))
    try:
        return reader.find_study(engine, "tiny")
    finally:
        engine.dispose()


def test_a_copied_database_whose_files_are_elsewhere_neither_writes_there_nor_deletes_there(tmp_path: Path):
    folder, files = owned_elsewhere(tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    before, url = everything_in(tmp_path / "disk"), sqlite_url(tmp_path / "copy")
    settings = settings_from(document(space=tiny_settings().space), "tiny.toml")
    with pytest.raises(ReadOnlyFolder, match="belongs to the database that this one is a copy of"):
        launch(settings, url, True, SilentCallback())
    assert RUNNER.invoke(condensery.app, ["doctor", "tiny", "--storage", url]).exception is not None
    deleted = RUNNER.invoke(condensery.app, ["delete", "tiny", "--yes", "--storage", url])
    assert (deleted.exit_code, "is a copy of, and stays" in deleted.stderr) == (0, True)
    assert everything_in(files) == before


def test_a_copy_of_the_database_never_owns_the_files_of_a_study_that_was_moved(original: Path, tmp_path: Path):
    study_folders.own(original / "study-files" / "tiny", sqlite_url(original))  # as a launch does
    moved = original.rename(tmp_path / "moved")
    (database,) = moved.glob("*.db")
    with closing(sqlite3.connect(database)) as first, closing(sqlite3.connect(moved / "second.db")) as copy:
        first.backup(copy)
    second = f"sqlite:///{moved / 'second.db'}"
    name = stored_in(moved).name
    files = everything_in(moved)
    settings = study_folders.with_places(tiny_settings(), second, stored_in(moved))
    with pytest.raises(ReadOnlyFolder, match="belongs to the database that this one is a copy of"):
        study_folders.refuse_anothers(study_folders.study_files(settings, second), second)
    assert RUNNER.invoke(condensery.app, ["delete", name, "--yes", "--storage", second]).exit_code == 0
    kept = everything_in(moved)
    assert {path: kept.get(path) for path in files if "second.db" not in path} == {
        path: content for path, content in files.items() if "second.db" not in path
    }
    assert picked_in(moved).trial.number == 0


@pytest.mark.parametrize("what", ["the database moves", "the files move", "both are copied"])
def test_a_study_in_two_places_goes_on_where_its_parts_were_moved_or_copied(tmp_path: Path, what: str):
    folder, files = owned_elsewhere(tmp_path)
    settings = tiny_settings()
    if what == "the database moves":
        folder = folder.rename(tmp_path / "moved")
    elif what == "the files move":
        files = files.rename(tmp_path / "disk2")
    else:
        folder = Path(shutil.copytree(folder, tmp_path / "copy"))
        files = Path(shutil.copytree(files, tmp_path / "disk2"))
    url = sqlite_url(folder)
    if what != "the database moves":
        settings = tiny_settings(study__files=str(files))
    settings = study_folders.with_places(settings, url, stored_in(folder))
    assert study_folders.study_files(settings, url) == files / "tiny"
    study_folders.refuse_anothers(files / "tiny", url)


def test_files_that_are_where_they_were_stay_there(tmp_path: Path):
    folder, files = owned_elsewhere(tmp_path)
    (tmp_path / "other/tiny").mkdir(parents=True)
    with pytest.raises(FrozenSettings, match=f"keeps its files in {files}"):
        study_folders.with_places(
            tiny_settings(study__files=str(tmp_path / "other")), sqlite_url(folder), stored_in(folder)
        )


def test_a_database_and_its_files_beside_it_move_together(tmp_path: Path):
    """Neither lies in the other, so the files' place is known from the database's, and from where it was before."""
    (tmp_path / "all").mkdir()
    folder, _ = owned_elsewhere(tmp_path / "all")
    assert stored_in(folder).settings["study"]["files"] == str(tmp_path / "all/disk")
    (tmp_path / "all").rename(tmp_path / "moved")
    assert stored_in(tmp_path / "moved/original").settings["study"]["files"] == str(tmp_path / "moved/disk")
    (tmp_path / "moved/original").rename(tmp_path / "original")  # and then the database alone: nothing is there
    (tmp_path / "moved").rename(tmp_path / "all")
    assert stored_in(tmp_path / "original").settings["study"]["files"] == str(tmp_path / "all/disk")


def test_a_study_whose_files_are_gone_says_so_once_and_makes_no_folder(original: Path, tmp_path: Path):
    files = original / "study-files"
    files.rename(tmp_path / "elsewhere")
    options = ["tiny", "--storage", sqlite_url(original)]
    for words in (["pick", *options], ["export", "0", *options, "--out", str(tmp_path / "x.onnx")]):
        error = RUNNER.invoke(condensery.app, words).exception
        assert isinstance(error, CheckpointCorrupt)
        assert "--set study.files=FOLDER" in str(error)
    found = json.loads(RUNNER.invoke(condensery.app, ["doctor", *options, "--dry-run", "--json"]).stdout)["findings"]
    (of_files,) = [finding for finding in found if finding["check"] == "file"]
    assert "--set study.files=FOLDER" in of_files["found"]
    assert not files.exists()


# -- images --


def test_moved_images_are_picked_with_what_was_decoded_and_changed_ones_are_refused(original: Path, tmp_path: Path):
    (original / "images").rename(tmp_path / "images")
    assert picked_in(original).test_evaluations == 1
    engine = open_for_writing(sqlite_url(original))
    with engine.begin() as connection:
        connection.execute(sa.update(tables.trial).values(test_top1=None))
    engine.dispose()
    shutil.rmtree(original / "study-files/.images")
    with pytest.raises(DataNotFound, match="resume the study once from where they are now"):
        picked_in(original)


def test_a_moved_image_folder_with_the_same_images_is_the_same_data(tmp_path: Path):
    """A study is opened again with the folder's new place, and an equal config is still a duplicate."""
    here, there = (tiny_settings(data={"dataset": f"imagefolder:/{place}/images"}) for place in ("here", "there"))
    url = sqlite_url(tmp_path)
    open_study(here, url, resume=False).engine.dispose()
    open_study(there, url, resume=True).engine.dispose()
    same = [prepare(tiny_settings(data=data).data, tmp_path / "cache").fingerprint for data in datas(tmp_path)]
    assert same[0] == same[1] != same[2]
    with pytest.raises(FrozenSettings, match=r"data\.dataset"):
        open_study(tiny_settings(data={"dataset": "digits"}), url, resume=True)


def datas(tmp_path: Path) -> list[dict[str, object]]:
    """The settings of an image folder, of its copy, and of one with other images."""
    folders = [image_folder(tmp_path / "one"), tmp_path / "two", image_folder(tmp_path / "three", seed=1)]
    shutil.copytree(folders[0], folders[1])
    return [{"dataset": f"imagefolder:{folder}", "image_size": 8} for folder in folders]


# -- databases from before --


def test_the_absolute_paths_of_an_earlier_version_become_relative_ones(original: Path, tmp_path: Path):
    connection = sqlite3.connect(original / "study.db")
    connection.execute("UPDATE condensery_artifact SET path = ? || path", (f"{original}/study-files/tiny/",))
    settings = json.loads(connection.execute("SELECT settings FROM condensery_study").fetchone()[0])
    settings["study"]["files"] = None
    settings["data"]["dataset"] = f"imagefolder:{original}/images"
    connection.execute("UPDATE condensery_study SET settings = ?", (json.dumps(settings),))
    connection.execute("UPDATE condensery_trial SET training = '{}', identity = 'old'")
    take_back(connection, "v0005")
    connection.close()
    assert str(original) in text_recorded(original / "study.db")
    assert upgrade(sqlite_url(original)) == ("v0005", tables.HEAD_REVISION)
    assert str(original) not in text_recorded(original / "study.db")
    assert picked_in(original.rename(tmp_path / "moved")).trial.identity not in ("old", "0")


def test_a_file_that_is_only_where_its_absolute_path_says_keeps_it(original: Path, tmp_path: Path):
    kept = tmp_path / "kept" / "tiny" / "trial-00000"
    kept.parent.mkdir(parents=True)
    (original / "study-files/tiny/trial-00000").rename(kept)
    connection = sqlite3.connect(original / "study.db")
    connection.execute("UPDATE condensery_artifact SET path = ? || name", (f"{kept}/",))
    connection.execute("UPDATE condensery_trial SET training = '{}'")
    take_back(connection, "v0005")
    connection.close()
    upgrade(sqlite_url(original))
    assert [path.parent for path in picked_in(original).files] == [kept, kept]


@pytest.mark.parametrize("key", ["study__files", "data__folder"])
def test_a_home_that_is_not_there_holds_no_files(tmp_path: Path, key: str):
    settings = tiny_settings(**{key: "~no-user-of-this-name/x"})
    with pytest.raises(ReadOnlyFolder, match="there is no such home folder"):
        study_folders.with_places(settings, sqlite_url(tmp_path), None)
