"""Curves for TensorBoard, read back by TensorBoard itself: each recorded epoch once, whatever was interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from search.event_files import SCALARS, WHOLE, EventFiles, check_tensorboard
from search.launch import launch
from search.loop.callbacks import SilentCallback
from search.store import reader
from search.store.connection.database import open_for_writing
from search.store.rows import NewTrial
from search.store.store import StudyStore
from search.store.studies import create_study
from search.time_estimate import outline_study
from space.cost import cost_of
from space.errors import InvalidSettings
from tests.search.tiny_studies import CURVE_ROW, INSIDE, sqlite_url, tiny_settings
from workers.file_names import TENSORBOARD, trial_folder
from workers.training.reporting import ProgressReport


class Desk(SilentCallback):
    """A study of one trial, whose epochs reach the event files as a controller reports them."""

    def __init__(self, url: str, root: Path) -> None:
        self.root, self.notes, self.told = root, list[str](), list[Any]()
        plain = tiny_settings().model_dump(mode="json")
        engine = open_for_writing(url)
        self.store = StudyStore(engine, create_study(engine, "one", 1, plain, ("a" * 64, "b" * 64)))
        self.store.add_trial(NewTrial(0, "sampled", INSIDE, {"epochs": 9}, 3, "identity", cost_of(INSIDE)))
        self.files = self.start()

    def start(self) -> EventFiles:
        """Begin as a new controller does; the one before may have been killed."""
        self.files = EventFiles(self.root, self.store, self)
        return self.files

    def note(self, text: str) -> None:
        self.notes.append(text)

    def curve(self, number: int, row: Any) -> None:
        self.told.append(row["epoch"])

    def dispatch(self, attempt: int) -> None:
        self.store.set_running(0, attempt)
        self.files.trial(self.store.trial(0))

    def epochs(self, *numbers: int, **changes: Any) -> None:
        for number in numbers:
            row = {
                **CURVE_ROW,
                "epoch": number,
                "train_loss": 1 / number,
                "seconds": 2.0 * number,
                "images_per_s": 640.5,
            }
            self.store.add_curve_row(0, {**row, **changes}, 1)
            self.files.curve(0, row | changes)

    def queue(self) -> None:
        self.store.set_queued(0)
        self.files.trial(self.store.trial(0))

    def finish(self, state: str = "done", **values: Any) -> None:
        self.store.finish(0, state, **values)
        self.files.trial(self.store.trial(0))

    @property
    def run(self) -> Path:
        return self.root / trial_folder(0)

    def recorded(self, column: str) -> list[tuple[int, float]]:
        curve = reader.read_curve(self.store.engine, self.store.trial(0).id)
        return [(row["epoch"], pytest.approx(row[column])) for row in curve]

    def assert_whole(self, epochs: int) -> None:
        """TensorBoard reads each epoch of the database once."""
        read = read_run(self.run)
        assert len(self.recorded("epoch")) == epochs
        for tag, column in SCALARS.items():
            assert [(event.step, event.value) for event in read.Scalars(tag)] == self.recorded(column)


def read_run(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


@pytest.fixture
def desk(study_database: str, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(study_database, tmp_path / "runs")
    yield desk
    desk.files.close()
    desk.store.engine.dispose()


def test_a_run_has_every_epoch_as_it_comes_and_at_the_end_settings_and_results(desk: Desk):
    desk.dispatch(1)
    desk.epochs(1, 2)
    desk.assert_whole(2)  # while it trains
    desk.epochs(3)
    desk.finish(top1=0.75, train_seconds=6.0)
    desk.assert_whole(3)
    read = read_run(desk.run)
    finals = {tag: read.Scalars(tag)[0].value for tag in read.Tags()["scalars"] if tag.startswith("final/")}
    row = desk.store.trial(0)
    assert finals == {"final/top1": 0.75, "final/macs": row.macs, "final/params": row.params}
    settings = read.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(settings).hparams
    assert hparams["epochs"].number_value == 9
    assert hparams["config.groups"].number_value == INSIDE.groups
    assert hparams["config.stages"].string_value == "[1]"
    assert desk.told == [1, 2, 3]  # what the wrapped callback was told
    seconds = [event.wall_time - row.started_at for event in read.Scalars("loss/train")]
    assert seconds == pytest.approx([2.0, 4.0, 6.0], abs=1e-3)


def test_epochs_repeated_after_a_lost_worker_are_there_once(desk: Desk):
    desk.dispatch(1)
    desk.epochs(1, 2, 3)
    desk.queue()
    desk.dispatch(2)
    desk.epochs(3, 4)
    desk.assert_whole(4)


def cut(run: Path) -> None:
    (file,) = run.glob("events.*")
    file.write_bytes(file.read_bytes()[:-7])


def empty(run: Path) -> None:
    (file,) = run.glob("events.*")
    file.write_bytes(b"")


def remove(run: Path) -> None:
    for file in run.iterdir():
        file.unlink()
    run.rmdir()


@pytest.mark.parametrize("left", [lambda run: None, cut, empty, remove])
def test_whatever_a_killed_controller_left_the_next_one_completes(desk: Desk, left: Callable[[Path], None]):
    desk.dispatch(1)
    desk.epochs(1, 2)
    left(desk.run)
    desk.store.add_curve_row(0, {**CURVE_ROW, "epoch": 3, "images_per_s": 1.5}, 1)  # recorded, and then it died
    desk.start()
    desk.assert_whole(3)
    assert desk.notes[-1] == f"TensorBoard: tensorboard --logdir {desk.root} (1 run of earlier launches written)"
    desk.dispatch(2)
    desk.epochs(3, 4, train_loss=0.25)
    desk.assert_whole(4)
    desk.store.finish(0, "done", top1=0.5)  # and died again, before it was told to the files
    desk.start()
    desk.assert_whole(4)
    assert read_run(desk.run).Scalars("final/top1")[0].value == 0.5
    before = sorted((path, path.stat().st_mtime_ns) for path in desk.run.iterdir())
    desk.start().trial(desk.store.trial(0))  # a resumed launch shows the newest trials again
    assert sorted((path, path.stat().st_mtime_ns) for path in desk.run.iterdir()) == before  # what is whole stays


def test_a_smaller_batch_begins_a_run_anew(desk: Desk):
    desk.dispatch(1)
    desk.epochs(1, 2, 3)
    desk.store.retry_smaller(0, {"epochs": 9}, "other")
    desk.queue()
    desk.dispatch(2)
    desk.epochs(1, train_loss=0.7)
    desk.assert_whole(1)


def test_a_trial_without_a_result_keeps_its_curve(desk: Desk):
    desk.dispatch(1)
    desk.epochs(1, 2)
    desk.queue()
    desk.finish("cancelled", reason="cancelled by the user")
    desk.assert_whole(2)
    assert not [tag for tag in read_run(desk.run).Tags()["scalars"] if tag.startswith("final/")]
    assert (desk.run / WHOLE).exists()


def test_a_folder_that_cannot_be_written_is_said_once_and_ends_nothing(desk: Desk):
    desk.root.parent.joinpath("runs").rmdir() if desk.root.exists() else None
    desk.root.write_text("a file where the folder should be")
    desk.dispatch(1)
    desk.epochs(1, 2)
    desk.files.under_way(0, ProgressReport(0.5, 1.0, None))
    desk.finish(top1=0.75)
    assert desk.told == [1, 2]
    (note,) = [note for note in desk.notes if "can't be written" in note]
    assert "the search goes on without them" in note
    assert "\n" not in note


def test_without_tensorboard_check_and_launch_say_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    settings = tiny_settings(study__tensorboard=True)
    for refuse in (
        check_tensorboard,
        lambda: outline_study(settings),
        lambda: launch(settings, sqlite_url(tmp_path), False, SilentCallback()),
    ):
        with pytest.raises(InvalidSettings, match=r"pip install 'condensery\[tensorboard\]'"):
            refuse()
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.slow
def test_a_launch_writes_a_run_for_each_trial_that_trains(tmp_path: Path):
    quick = {"latency__policy": "quick", "engine__workers": 1, "search__batch": 1}
    settings = tiny_settings(study__tensorboard=True, study__trainings=1, training__epochs=2, **quick)
    launch(settings, sqlite_url(tmp_path), False, SilentCallback())
    engine = open_for_writing(sqlite_url(tmp_path))
    rows = [row for row in reader.read_trials(engine, 1) if row.state == "done"]
    root = tmp_path / "study-files" / "tiny" / TENSORBOARD
    assert sorted(path.name for path in root.iterdir()) == [trial_folder(row.number) for row in rows]
    for row in rows:
        read, curve = read_run(root / trial_folder(row.number)), reader.read_curve(engine, row.id)
        rates = [(event.step, event.value) for event in read.Scalars("training/images_per_s")]
        assert rates == [(epoch["epoch"], pytest.approx(epoch["images_per_s"])) for epoch in curve]
        assert len(rates) == 2
        assert min(rate for _, rate in rates) > 0
        latency = read.Scalars("final/latency_ms/host/measured")[0].value
        assert latency == pytest.approx(row.latency.median_ms)
    engine.dispose()
