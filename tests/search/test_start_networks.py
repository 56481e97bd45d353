"""`training.start`: the trials and bundles that it may name, what is refused, and what a study keeps."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from dashboards.terminal.answers import outline_document, start_lines
from search.budget import Budget
from search.crossvalidation import cross_validate
from search.launch import launch, starts_of
from search.loop.callbacks import SilentCallback
from search.pricing import targets
from search.results.bundle.preview import preview_bundle
from search.settings import StudySettings
from search.start_networks import Start, TrainedOn, check_fits, check_unseen, find_starts, keep_starts, written_starts
from search.store import reader
from search.store.rows import NewTrial, StudyRow
from search.store.store import StudyStore
from search.study_file import settings_from
from search.time_estimate import outline_study
from space.cost import cost_of
from space.errors import (
    CheckpointCorrupt,
    CondenseryError,
    DatabaseUnavailable,
    FrozenSettings,
    InvalidSettings,
    StudyNotFound,
    TrialNotFound,
    TrialNotReady,
)
from tests.search.test_launch import Place, new_place
from tests.search.tiny_studies import INSIDE, CountingProbe, sqlite_url, tiny_settings
from tests.search.trained_study import files_of_trial, trained_study
from workers.file_names import NETWORK_FILE, SPLITS_FILE
from workers.images.cache import prepare
from workers.images.split_file import SplitRow, read_split_rows, split_table
from workers.settings import DataSettings, TrainingSettings
from workers.training.start import pin_of, start_file, without_pin

CHANGED = b"weights that nobody trained"


@pytest.fixture
def store(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    info = prepare(DataSettings(), tmp_path / "images")
    store.transact(partial(store.set_data_info, info.to_dict()))
    yield store
    store.engine.dispose()


@pytest.fixture
def bundle(store: StudyStore, tmp_path: Path) -> Path:
    (study,), (row,) = reader.list_studies(store.engine), store.trials()
    with zipfile.ZipFile(io.BytesIO(preview_bundle(store.engine, study, row, Budget(2.0)))) as archive:
        archive.extractall(tmp_path / "unpacked")
    (folder,) = (tmp_path / "unpacked").iterdir()
    return folder


def starting(start: object) -> StudySettings:
    return tiny_settings(study__name="next", training__start=start)


def found(tmp_path: Path, start: object) -> tuple[StudySettings, tuple[Start, ...]]:
    return find_starts(starting(start), sqlite_url(tmp_path))


# ---- what may be named ----------------------------------------------------------------------------------


def test_a_trial_is_pinned_and_known_by_config_and_classes(store: StudyStore, tmp_path: Path):
    settings, (start,) = found(tmp_path, "trial:tiny/0")
    assert start.name == "trial:tiny/0"
    assert (start.network.config, start.network.class_names) == (INSIDE, tuple("0123456789"))
    assert settings.training["start"] == start.setting == f"trial:tiny/0#{start.network.pin}"
    assert start.file == start_file(settings.training)


def test_a_bundle_and_a_trial_of_another_database_are_the_same_network(store: StudyStore, bundle: Path, tmp_path: Path):
    elsewhere = f"sqlite:///{tmp_path / 'another.db'}"
    names = (f"bundle:{bundle}", f"trial:tiny/0@{tmp_path / 'study.db'}")
    starts = [find_starts(starting(name), elsewhere)[1][0] for name in names]
    _, (direct,) = found(tmp_path, "trial:tiny/0")
    assert {start.network for start in starts} == {direct.network}


def test_a_start_may_be_searched(store: StudyStore, bundle: Path, tmp_path: Path):
    settings, starts = found(tmp_path, ["none", "trial:tiny/0", f"bundle:{bundle}"])
    assert len(starts) == 2
    assert settings.training["start"] == ["none", *(start.setting for start in starts)]
    tried = {settings.training_space().from_params({"start": start.setting}).start for start in starts}
    assert tried == {start.setting for start in starts}


def test_a_study_without_a_start_is_as_it_was(tmp_path: Path):
    settings = tiny_settings()
    assert written_starts(settings) == []
    assert find_starts(settings, "sqlite:////nowhere/at.db") == (settings, ())
    assert "start" not in TrainingSettings().model_dump()
    assert TrainingSettings(start="none").digest() == TrainingSettings().digest()
    assert TrainingSettings(start="trial:a/1").digest() != TrainingSettings().digest()


# ---- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", ["trial", "trial:3", "trial:a/b", "study/12", "bundle:", "trial:a/3\n", "", 3, "x" * 2000]
)
def test_what_names_no_network_is_refused(start: object):
    with pytest.raises(InvalidSettings, match=r"training.start"):
        starting(start)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        ("trial:nobody/0", StudyNotFound, "no study is called 'nobody'"),
        ("trial:tiny/7", TrialNotFound, "but you asked for 7"),
        ("trial:tiny/0@/nowhere/at.db", DatabaseUnavailable, "/nowhere/at.db"),
        ("bundle:/nowhere/at/all", InvalidSettings, "/nowhere/at/all is no bundle"),
    ],
)
def test_what_isnt_there_is_one_line(
    store: StudyStore, tmp_path: Path, start: str, error: type[CondenseryError], message: str
):
    with pytest.raises(error, match=message) as caught:
        found(tmp_path, start)
    assert str(caught.value).startswith(f"training.start = {start!r}: ")
    assert "\n" not in str(caught.value)


def test_a_trial_that_wasnt_trained_is_refused(store: StudyStore, tmp_path: Path):
    store.add_trial(NewTrial(1, "sampled", INSIDE, {}, 0, "1", cost_of(INSIDE)))
    store.finish(1, "infeasible", reason="too many macs")
    with pytest.raises(TrialNotReady, match=r"trial 1 is infeasible \(too many macs\)"):
        found(tmp_path, "trial:tiny/1")


def test_a_trial_whose_network_retention_removed_is_refused(store: StudyStore, tmp_path: Path):
    store.transact(partial(store.mark_removed, 0))
    with pytest.raises(CheckpointCorrupt, match="removed by the retention rule"):
        found(tmp_path, "trial:tiny/0")


def test_a_network_that_was_changed_is_refused(store: StudyStore, bundle: Path, tmp_path: Path):
    for folder, start in ((files_of_trial(tmp_path), "trial:tiny/0"), (bundle, f"bundle:{bundle}")):
        weights = folder / NETWORK_FILE
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(CheckpointCorrupt, match="its SHA-256 differs"):
            found(tmp_path, start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("[weights]", "[other]"), "lacks the config, the classes or the hash"),
        (lambda text: text.replace("groups = 2", "groups = 3"), "is not valid"),
        (lambda text: text + "=", "is no bundle"),
        (lambda text: text.replace('"0", ', "", 1), r"its network, which has 10, but names 9; pick the bundle again"),
    ],
)
def test_a_bundle_that_was_edited_is_refused(bundle: Path, tmp_path: Path, change: Callable[[str], str], message: str):
    deploy = bundle / "deploy.toml"
    deploy.write_text(change(deploy.read_text()))
    with pytest.raises(InvalidSettings, match=message):
        found(tmp_path, f"bundle:{bundle}")


def test_a_bundle_whose_config_was_edited_is_not_believed(bundle: Path, tmp_path: Path):
    deploy = bundle / "deploy.toml"
    text = deploy.read_text()
    assert text.count("growth = [4]") == 1
    deploy.write_text(text.replace("growth = [4]", "growth = [8]"))
    with pytest.raises(CheckpointCorrupt, match=r"training.start = 'bundle:.*its weights are not those of a"):
        found(tmp_path, f"bundle:{bundle}")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"groups": [1, 4]}, "its groups is 2, which space.groups doesn't hold"),
        ({"condense_factor": 1}, "its condense_factor is 2"),
        ({"bottleneck": 2}, "its bottleneck is 1"),
        ({"groups_3x3": 1}, "its groups_3x3 is 2"),
        ({"growth": 8}, "its growth of the first stage is 4"),
        ({"input_shape": [3, 8, 8]}, "its images have 1 channel, these have 3; set data.channels = 1"),
    ],
)
def test_a_start_of_which_nothing_fits_is_refused(
    store: StudyStore, tmp_path: Path, space: dict[str, object], message: str
):
    settings, starts = found(tmp_path, "trial:tiny/0")
    check_fits(settings, starts)
    other = settings.model_copy(update={"space": {**settings.space, **space}})
    with pytest.raises(InvalidSettings, match=message):
        check_fits(other, starts)


def test_check_says_what_trainings_start_from_and_how_much_of_it_fits(store: StudyStore, tmp_path: Path):
    settings, starts = found(tmp_path, "trial:tiny/0")
    outline = outline_study(settings, starts)
    (start, words), (_, fit) = start_lines(outline)
    assert (start, words) == ("start", f"trial:tiny/0: {INSIDE}")
    assert fit.startswith("the sampled architecture that fits it best begins with the stem and 1 of 1 layer, ")
    assert fit.endswith("the classifier too")
    (document,) = outline_document(outline, None)["starts"]
    assert document["best_fit"]["layers"] == 1
    assert start_lines(outline_study(tiny_settings())) == ()


# ---- what a start has seen ------------------------------------------------------------------------------


def said_of(data: DataSettings, cache: Path, starts: Sequence[Start]) -> list[str]:
    notes: list[str] = []
    check_unseen(data, cache, starts, notes.append)
    return notes


LEARNED = r"its network learned from [\d,]+ of the [\d,]+ images that are held out"


def test_a_start_that_learned_from_what_is_held_out_now_is_refused(store: StudyStore, tmp_path: Path):
    _, starts = found(tmp_path, "trial:tiny/0")
    cache = tmp_path / "images"
    assert prepare(DataSettings(), cache).num_classes == 10
    for same in (DataSettings(), DataSettings(crop_padding=0), DataSettings(image_size=6)):
        assert said_of(same, cache, starts) == []
    for changed in ({"split_seed": 1}, {"folds": 5, "fold": 2}, {"test_fraction": 0.5}):
        for size in (None, 6):  # the images of another size aren't decoded
            with pytest.raises(InvalidSettings, match=rf"'trial:tiny/0': {LEARNED}"):
                said_of(DataSettings(image_size=size, **changed), cache, starts)


class Pets(NamedTuple):
    """Images of one's own, and what a network was trained on: them, at 16 pixels."""

    settings: DataSettings
    trained_on: TrainedOn
    cache: Path


def save_pets(folder: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            picture = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            picture.resize((48, 48), Image.Resampling.BICUBIC).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Pets:
    folder = tmp_path_factory.mktemp("own")
    save_pets(folder / "pets", 0)
    then = DataSettings(dataset=f"imagefolder:{folder / 'pets'}", image_size=16)
    info, table = prepare(then, folder / "cache"), split_table(then, folder / "cache")
    assert table is not None
    now = then.model_copy(update={"image_size": 24, "split_seed": 1})
    return Pets(now, TrainedOn(info.fingerprint, then, read_split_rows(table)), folder / "cache")


@pytest.fixture
def of_pets(store: StudyStore, tmp_path: Path, pets: Pets) -> Callable[[TrainedOn], list[Start]]:
    (start,) = found(tmp_path, "trial:tiny/0")[1]
    return lambda trained_on: [replace(start, trained_on=trained_on)]


def test_a_start_is_refused_by_names_where_its_images_were_decoded_otherwise(of_pets, pets: Pets, tmp_path: Path):
    of_bundle = TrainedOn(rows=pets.trained_on.rows)  # which doesn't say where its images were
    with pytest.raises(InvalidSettings, match=LEARNED):
        said_of(pets.settings, tmp_path, of_pets(pets.trained_on))
    (note,) = said_of(pets.settings, tmp_path, of_pets(of_bundle))
    assert note.endswith("a launch compares how they look")
    prepare(pets.settings, tmp_path)
    same_splits = pets.settings.model_copy(update={"split_seed": 0})
    for trained_on in (pets.trained_on, of_bundle):
        with pytest.raises(InvalidSettings, match=LEARNED):
            said_of(pets.settings, tmp_path, of_pets(trained_on))
        assert said_of(same_splits, tmp_path, of_pets(trained_on)) == []


def test_other_images_of_the_same_names_are_not_taken_for_those_that_were_learned(of_pets, pets: Pets, tmp_path: Path):
    save_pets(tmp_path / "others", 1)
    others = pets.settings.model_copy(update={"dataset": f"imagefolder:{tmp_path / 'others'}"})
    prepare(others, tmp_path)
    assert said_of(others, tmp_path, of_pets(pets.trained_on)) == []


def test_where_nothing_tells_what_a_start_learned_from_that_is_said_once(of_pets, pets: Pets, tmp_path: Path):
    assert pets.trained_on.rows is not None
    earlier = TrainedOn(rows=[row._replace(picture="") for row in pets.trained_on.rows])
    for trained_on, reason in (
        (TrainedOn(), "nothing says which files it learned from"),
        (earlier, "files of the same names and labels were"),
    ):
        (note,) = said_of(pets.settings, tmp_path, of_pets(trained_on))
        assert note == f"whether trial:tiny/0 has learned from images that are held out now isn't known: {reason}"


def test_what_a_start_learned_from_is_read_beside_its_network(store: StudyStore, bundle: Path, tmp_path: Path):
    text = "file,label,split,group,weight\na/0.png,a,train,,\n"  # of an earlier version
    for folder, start in ((files_of_trial(tmp_path).parent, "trial:tiny/0"), (bundle, f"bundle:{bundle}")):
        (folder / SPLITS_FILE).write_text(text)
        (read,) = found(tmp_path, start)[1]
        assert read.trained_on is not None
        assert read.trained_on.rows == [SplitRow("a/0.png", "a", "train", "", "")]
        (folder / SPLITS_FILE).write_text("damaged")
        assert found(tmp_path, start)[1][0].trained_on.rows == []


def test_a_launch_whose_start_has_seen_the_held_out_images_records_nothing(store: StudyStore, tmp_path: Path):
    settings = starting("trial:tiny/0")
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"split_seed": 3})})
    with pytest.raises(InvalidSettings, match="look better than it is; take over"):
        launch(settings, sqlite_url(tmp_path), False, SilentCallback())
    assert [study.name for study in reader.list_studies(store.engine)] == ["tiny"]


def test_check_refuses_such_a_start_too_before_images_are_decoded(store: StudyStore, tmp_path: Path):
    settings, notes = starting("trial:tiny/0"), list[str]()
    (start,) = starts_of(settings, sqlite_url(tmp_path), notes.append)
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"split_seed": 3})})
    with pytest.raises(InvalidSettings, match=f"start = '{start.name}': {LEARNED}"):
        starts_of(settings, sqlite_url(tmp_path), notes.append)
    assert notes == []


def test_crossvalidation_says_that_the_start_may_have_seen_the_other_folds(store: StudyStore, tmp_path: Path):
    folded = trained_study(tmp_path, CountingProbe(), name="folded", data__folds=2)
    info = prepare(DataSettings(folds=2), tmp_path / "images")
    folded.transact(partial(folded.set_data_info, info.to_dict()))
    (study,) = (study for study in reader.list_studies(folded.engine) if study.name == "folded")
    settings, starts = found(tmp_path, "trial:tiny/0")
    keep_starts(files_of_trial(tmp_path, "folded").parent, starts)
    (done,) = folded.trials()
    for start in (settings.training["start"], "none"):
        notes: list[str] = []
        row = replace(done, training=TrainingSettings(epochs=1, batch_size=256, start=start).model_dump())
        stored = settings_from(study.settings, "the stored settings")
        assert len(list(cross_validate(study, row, stored, sqlite_url(tmp_path), notes.append))) == 2
        assert ("seen those of the other folds" in " ".join(notes)) == (start != "none")
    folded.engine.dispose()


# ---- what a study keeps ---------------------------------------------------------------------------------


def as_stored(settings: StudySettings, store: StudyStore) -> StudyRow:
    (row,) = reader.list_studies(store.engine)
    return StudyRow(**{**row.__dict__, "settings": settings.model_dump(mode="json")})


def test_a_study_goes_on_from_its_copy_whatever_becomes_of_the_trial(store: StudyStore, tmp_path: Path):
    settings, starts = found(tmp_path, "trial:tiny/0")
    keep_starts(tmp_path / "kept", starts)
    stored = as_stored(settings, store)
    shutil.rmtree(files_of_trial(tmp_path))
    again = find_starts(starting("trial:tiny/0"), sqlite_url(tmp_path), stored, tmp_path / "kept")
    assert again == (settings, starts)
    assert find_starts(settings, sqlite_url(tmp_path), stored, tmp_path / "kept") == (settings, starts)
    (tmp_path / "kept" / starts[0].file).write_bytes(CHANGED)
    with pytest.raises(CheckpointCorrupt, match="is gone"):
        find_starts(starting("trial:tiny/0"), sqlite_url(tmp_path), stored, tmp_path / "kept")


def test_a_copy_that_is_gone_is_made_again_from_the_same_network_alone(store: StudyStore, tmp_path: Path):
    settings, starts = found(tmp_path, "trial:tiny/0")
    stored, kept = as_stored(settings, store), tmp_path / "kept"
    assert find_starts(starting("trial:tiny/0"), sqlite_url(tmp_path), stored, kept) == (settings, starts)
    other = settings.training["start"].replace(starts[0].network.pin, "0" * 16)
    settings = settings.model_copy(update={"training": {**settings.training, "start": other}})
    with pytest.raises(FrozenSettings, match=f"not the network {'0' * 16} that was meant"):
        find_starts(starting("trial:tiny/0"), sqlite_url(tmp_path), as_stored(settings, store), kept)


@pytest.mark.slow(seconds=8)
def test_a_launch_trains_from_an_earlier_studys_network_and_is_resumed_without_it(
    store: StudyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(targets, "host_probe", lambda *_: CountingProbe())  # only the trainings are real
    place = new_place(tmp_path)
    like_the_start = (f"space.{name}={getattr(INSIDE, name)}" for name in ("groups", "condense_factor", "bottleneck"))
    changes = (*like_the_start, "study.name=tuned", 'training.start="trial:tiny/0"', "study.trainings=1")
    changes += ("engine.workers=1", "search.startup=1")
    place.launch(*changes)
    (tuned,) = [row for row in place.read("tuned") if row.state == "done"]
    pin = pin_of(tuned.training["start"])
    assert without_pin(tuned.training["start"]) == "trial:tiny/0"
    files = place.folder / "files" / "tuned"
    assert "begins as trial:tiny/0" in log_of(place, tuned.number)
    assert (files / f"start-{pin}.safetensors").is_file()
    shutil.rmtree(files_of_trial(tmp_path))
    place.launch(*changes, "study.trainings=2", resume=True)
    assert {row.training["start"] for row in place.read("tuned")} == {tuned.training["start"]}


def log_of(place: Place, number: int) -> str:
    return (place.folder / "files" / "tuned" / f"trial-{number:05d}" / "log.txt").read_text()
