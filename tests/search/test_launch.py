"""From a study file to its end, with real processes, real trainings and real latencies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import optuna_dashboard
import pytest
from optuna.trial import TrialState

from search import launch as launching
from search.engines.base import Engine
from search.launch import Launched, check_same, existing_study, interruptible, launch
from search.loop.callbacks import SilentCallback
from search.pricing import targets as targeting
from search.pricing.pricer import ANCHOR, Target, price
from search.reachability import cheapest, check_reachable
from search.settings import StudySettings
from search.store import controller_lease, reader
from search.store.connection import transactions
from search.store.connection.database import open_for_reading, open_for_writing
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from search.study import optuna_storage
from search.study_file import load_settings
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import (
    BudgetUnreachable,
    DatabaseUnavailable,
    EngineUnavailable,
    FrozenSettings,
    InvalidSettings,
    MeasurementFailed,
    ReadOnlyFolder,
    StudyBusy,
    StudyExists,
)
from tests.command_line import StartedCommand
from tests.search.tiny_studies import CountingProbe, sqlite_url, targets, tiny_settings
from tests.waiting import until
from workers.files import file_hash
from workers.images.data_info import DataInfo
from workers.latency import FailedMeasurement, FakeProbe, Measurement
from workers.processes import lives, pid_of
from workers.training.trial import load_network

ROOT = Path(__file__).parents[2]
STUDY = """
format = 1
[study]
name = "digits"
trainings = 3
files = "{files}"
[data]
dataset = "digits"
[space]
groups = [1, 2]
condense_factor = [1, 2]
bottleneck = [1, 2]
num_stages = [1, 2]
layers = [1, 2]
growth = [4]
[training]
epochs = 2
batch_size = 128
[latency]
policy = "quick"
[engine]
workers = 2
device = "cpu"
[search]
startup = 2
"""


@dataclass(frozen=True)
class Place:
    """A folder with a study file, and the database beside it."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "study.toml"

    @property
    def url(self) -> str:
        return sqlite_url(self.folder)

    def settings(self, *overrides: str) -> StudySettings:
        return load_settings(self.file, overrides)

    def launch(self, *overrides: str, resume: bool = False) -> Launched:
        """Launch the study; what is remarked about its networks depends on how they happened to learn."""
        return replace(launch(self.settings(*overrides), self.url, resume, SilentCallback()), remarks=())

    def read(self, study: str = "digits") -> list[TrialRow]:
        engine = open_for_reading(self.url)
        try:
            return reader.read_trials(engine, reader.find_study(engine, study).id)
        finally:
            engine.dispose()

    def curve(self, row: TrialRow) -> list[dict[str, Any]]:
        engine = open_for_reading(self.url)
        try:
            return reader.read_curve(engine, row.id)
        finally:
            engine.dispose()

    def stored(self) -> StudyRow:
        engine = open_for_reading(self.url)
        try:
            return reader.find_study(engine, "digits")
        finally:
            engine.dispose()

    def states(self) -> Counter[str]:
        return Counter(row.state for row in self.read())

    def epochs(self) -> int:
        """How many epochs are recorded, of all trials."""
        return sum(len(self.curve(row)) for row in self.read()) if existing_study(self.url, "digits") else 0

    def hold(self) -> int:
        """Stop the one worker that trains, and return its process id: its training can't end before what comes next."""
        engine = open_for_reading(self.url)
        try:
            (running,) = reader.read_attempts(engine, reader.find_study(engine, "digits").id, only_open=True)
        finally:
            engine.dispose()
        pid = pid_of(str(running.worker))
        os.kill(pid, signal.SIGSTOP)
        return pid


def new_place(folder: Path) -> Place:
    (folder / "study.toml").write_text(STUDY.format(files=folder / "files"))
    return Place(folder)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return new_place(tmp_path)


def optuna_trials(place: Place) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(place.url)
    try:
        return optuna.load_study(study_name="digits", storage=storage).get_trials()
    finally:
        storage.engine.dispose()


# -- a whole study --


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = new_place(tmp_path_factory.mktemp("finished"))
    assert place.launch() == Launched("finished", "digits", done=3, wanted=3)
    return place


@pytest.mark.slow
def test_every_training_has_its_files_curve_and_measured_latency(finished: Place):
    done = [row for row in finished.read() if row.state == "done"]
    assert len(done) >= 3
    for row in done:
        folder = finished.folder / "files" / "digits" / f"trial-{row.number:05d}"
        engine = open_for_reading(finished.url)
        files = reader.read_artifacts(engine, row.id)
        (measured,) = reader.read_latencies(engine, row.id)
        engine.dispose()
        assert {name: entry["path"] for name, entry in files.items()} == {
            name: str(folder / name) for name in ("model.onnx", "network.safetensors")
        }
        assert all(file_hash(Path(entry["path"])) == entry["sha256"] for entry in files.values())
        load_network(folder, row.config, files["network.safetensors"]["sha256"])
        curve = finished.curve(row)
        assert [point["epoch"] for point in curve] == [1, 2]
        assert curve[-1]["form"] == "deployed"
        assert curve[-1]["val_top1"] == row.top1
        assert (measured.kind, measured.purpose, measured.policy) == ("measured", "price", "quick")
        assert 0 < row.latency.interval_low_ms <= row.latency.median_ms <= row.latency.interval_high_ms
        assert row.macs == cost_of(row.config).macs


@pytest.mark.slow
def test_optuna_reads_the_study_with_three_values_a_training(finished: Place):
    done = {row.number: row for row in finished.read() if row.state == "done"}
    complete = [trial for trial in optuna_trials(finished) if trial.state == TrialState.COMPLETE]
    assert {trial.number for trial in complete} == done.keys()
    for trial in complete:
        row = done[trial.number]
        assert trial.values == [row.top1, row.latency.median_ms, float(row.macs)]


@pytest.mark.slow
def test_nothing_is_left_open_or_held(finished: Place):
    found = finished.stored()
    assert (found.controller, found.stop_requested) == (None, False)
    assert sum(found.data_info[f"{split}_images"] for split in ("train", "validation", "test")) == 1797
    assert not list((finished.folder / "files" / "digits").glob("pricing-*"))
    with sqlite3.connect(finished.folder / "study.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.slow
def test_the_same_name_without_resume_is_refused_before_anything_happens(finished: Place, monkeypatch):
    before = finished.read()
    monkeypatch.setattr(launching, "prepare", lambda *_: pytest.fail("images were prepared"))
    monkeypatch.setattr(targeting, "host_probe", lambda *_: pytest.fail("a latency was measured"))
    with pytest.raises(StudyExists, match=r"'digits' exists in this database; go on with it by --resume"):
        finished.launch("study.trainings=9")
    assert finished.read() == before


@pytest.mark.slow
def test_resuming_with_another_space_is_refused_and_names_the_keys(finished: Place):
    before = finished.read()
    with pytest.raises(FrozenSettings, match=r"space\.bottleneck \(\[1, 2\] -> \[1\]\); training\.epochs \(2 -> 3\)"):
        finished.launch("space.bottleneck=[1]", "training.epochs=3", resume=True)
    assert finished.read() == before


@pytest.mark.slow
def test_resuming_trains_what_is_missing_and_stores_the_new_number(finished: Place):
    before = {row.number: row for row in finished.read()}
    wanted = sum(row.state == "done" for row in before.values()) + 1
    overrides = (f"study.trainings={wanted}", "engine.workers=1")
    assert finished.launch(*overrides, resume=True) == Launched("finished", "digits", wanted, wanted)
    after = {row.number: row for row in finished.read()}
    assert {number: after[number] for number in before} == before
    assert finished.stored().settings["study"]["trainings"] == wanted


@pytest.mark.slow
def test_a_study_is_not_resumed_with_other_images_or_on_another_device(finished: Place, monkeypatch):
    info = finished.stored().data_info
    assert info is not None
    assert info["fingerprint"]
    probe = FakeProbe(lambda path: 1.0, device="host:another")
    with pytest.raises(FrozenSettings, match=r"were measured on host:.*, but this is host:another"):
        check_same("digits", finished.url, DataInfo.from_dict(info), [Target("host", probe)])
    (measured_on,) = {row.latency.device for row in finished.read() if row.latency}
    same = FakeProbe(lambda path: 1.0, device=measured_on)
    check_same("digits", finished.url, DataInfo.from_dict(info), [Target("host", same)])
    with pytest.raises(FrozenSettings, match="have changed since study 'digits' began"):
        check_same("digits", finished.url, DataInfo.from_dict({**info, "fingerprint": "0"}), [Target("host", same)])
    with pytest.raises(FrozenSettings, match=r"chose other images by data\.images when study 'digits' began"):
        check_same("digits", finished.url, DataInfo.from_dict({**info, "validation_images": 1}), [Target("host", same)])


@pytest.mark.slow
def test_a_finished_trial_keeps_no_checkpoints_and_its_network(finished: Place):
    for row in finished.read():
        if row.state == "done":
            folder = finished.folder / "files" / "digits" / f"trial-{row.number:05d}"
            assert (folder / "network.safetensors").exists()
            assert not list((folder / "checkpoints").glob("checkpoint-*"))


@pytest.mark.slow
def test_files_of_another_study_of_the_same_name_are_left_alone(finished: Place, tmp_path: Path):
    """Two databases with one files folder: the second study must not write over the first one's networks."""
    with pytest.raises(ReadOnlyFolder, match="holds the files of another study of this name"):
        launch(finished.settings(), sqlite_url(tmp_path), False, SilentCallback())
    assert not (tmp_path / "study.db").exists()


@pytest.mark.slow
def test_resuming_with_fewer_trainings_than_are_done_trains_nothing(finished: Place):
    before = finished.states()
    launched = finished.launch("study.trainings=1", resume=True)
    assert launched.ending == "finished"
    assert finished.states() == before


@pytest.mark.slow
def test_a_resumed_study_keeps_its_files_where_they_are(finished: Place, tmp_path: Path):
    with pytest.raises(FrozenSettings, match=r"keeps its files in .*, but study.files now means"):
        finished.launch(f"study.files={tmp_path / 'elsewhere'}", resume=True)
    stored = Path(finished.stored().settings["study"]["files"])
    assert stored == finished.folder / "files"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_optuna_dashboard_opens_the_same_file(finished: Place):
    app = optuna_dashboard.wsgi(optuna_storage(finished.url))
    server = make_server("127.0.0.1", 0, app, handler_class=QuietHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/api/studies"
        with urllib.request.urlopen(address, timeout=30) as answer:
            (study,) = json.load(answer)["study_summaries"]
        assert study["study_name"] == "digits"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.slow
def test_a_study_that_another_process_runs_is_busy_and_keeps_its_settings(finished: Place):
    before = finished.stored()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        engine = open_for_writing(finished.url)
        store = StudyStore(engine, before.id)
        store.me = f"{socket.gethostname()}:{other.pid}"
        store.claim()
        with pytest.raises(StudyBusy, match=f":{other.pid} "):
            finished.launch("study.trainings=99", resume=True)
        assert finished.stored().settings == before.settings
        store.release()
        engine.dispose()
        other.communicate()


# -- interrupted and killed --

SCHEDULE = ("study.trainings=1", "training.epochs=16", "engine.workers=1")


@pytest.fixture
def learning(place: Place) -> Iterator[Callable[..., tuple[StartedCommand, int]]]:
    """Starts a launch in a group of its own, as a terminal does; once it has learned, its worker holds."""
    processes: list[StartedCommand] = []

    def start(*more: str, epochs: int) -> tuple[StartedCommand, int]:
        words = ["launch", "study.toml", "--storage", place.url, *more]
        words += [word for change in SCHEDULE for word in ("--set", change)]
        process = StartedCommand(*words, cwd=place.folder, log=place.folder / "launch.log")
        processes.append(process)

        def has_learned() -> bool:
            assert process.poll() is None, process.log.read_text()
            return place.epochs() >= epochs

        until(has_learned, within_s=300.0)
        return process, place.hold()

    yield start
    for process in processes:
        process.kill()


@pytest.mark.slow(seconds=15)
def test_a_killed_launch_is_taken_over_by_the_next_which_an_interrupt_ends_cleanly_and_a_third_completes(
    place: Place, learning: Callable[..., tuple[StartedCommand, int]]
):
    killed, held = learning(epochs=1)
    killed.kill()
    killed.wait()
    assert place.states()["running"] == 1
    until(lambda: not lives(held))
    interrupted, held = learning("--resume", epochs=place.epochs() + 1)
    os.killpg(interrupted.pid, signal.SIGINT)
    until(lambda: "stopping after" in interrupted.log.read_text())
    os.kill(held, signal.SIGCONT)
    assert interrupted.wait(300.0) == 130
    assert "stopped with" in interrupted.log.read_text()
    (stopped,) = [row for row in place.read() if row.state == "queued"]
    assert place.states()["running"] == 0
    assert list(
        (place.folder / "files" / "digits" / f"trial-{stopped.number:05d}" / "checkpoints").glob("*.safetensors")
    )
    assert place.launch(*SCHEDULE, resume=True) == Launched("finished", "digits", 1, 1)
    (done,) = [row for row in place.read() if row.state == "done"]
    assert done.number == stopped.number
    assert [point["epoch"] for point in place.curve(done)] == list(range(1, 17))
    assert all(trial.state.is_finished() for trial in optuna_trials(place))


def test_the_first_interrupt_asks_and_the_second_insists():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_polite_request_to_terminate_asks_too():
    with interruptible() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()


def test_outside_the_main_thread_signals_are_left_alone():
    handlers = []

    def run() -> None:
        with interruptible():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


# -- what can be reached --


@pytest.mark.parametrize("override", ["budget.max_macs=10", "budget.max_params=10"])
def test_a_budget_below_the_space_is_refused_before_a_study_exists(place: Place, override: str):
    with pytest.raises(BudgetUnreachable, match=r"= 10 is below anything in this space: the smallest found has [\d,]+"):
        place.launch(override)
    assert not (place.folder / "study.db").exists()


def test_a_latency_below_the_space_is_refused_before_a_study_exists(place: Place, monkeypatch: pytest.MonkeyPatch):
    made_up = CountingProbe()
    made_up.device = "host:made-up"
    monkeypatch.setattr(targeting, "host_probe", lambda *_: made_up)
    with pytest.raises(BudgetUnreachable, match=r"the smallest networks take [\d.e-]+ ms on host:"):
        place.launch("budget.max_latency_ms=0.000001")
    assert not (place.folder / "study.db").exists()


def every_config(settings: StudySettings) -> list[CondenseNetConfig]:
    space = settings.search_space()
    values = itertools.product(*(domain.enumerate() for domain in space.domains.values()))
    return [space.from_params(dict(zip(space.domains, choice, strict=True))) for choice in values]


@pytest.mark.parametrize("what", ["macs", "params"])
def test_the_cheapest_config_is_found(what: str):
    settings = tiny_settings()
    least = min(getattr(cost_of(config), what) for config in every_config(settings))
    found = cheapest(settings.search_space(), lambda config: getattr(cost_of(config), what))
    assert getattr(cost_of(found), what) == least


def reachable(settings: StudySettings, probe: CountingProbe, files: Path) -> None:
    check_reachable(settings, targets(settings, probe), files)


def test_a_budget_of_exactly_the_smallest_cost_is_reachable(tmp_path: Path):
    least = min(cost_of(config).macs for config in every_config(tiny_settings()))
    probe = CountingProbe()
    reachable(tiny_settings(budget__max_macs=least), probe, tmp_path)
    with pytest.raises(BudgetUnreachable, match=f"the smallest found has {least:,} macs"):
        reachable(tiny_settings(budget__max_macs=least - 1), probe, tmp_path)
    assert probe.measured == []  # nothing is measured where no latency is asked for


def test_a_latency_budget_is_checked_against_the_smallest_networks(tmp_path: Path):
    probe = CountingProbe()
    reachable(tiny_settings(budget__max_latency_ms=1.0), probe, tmp_path)
    assert 1 <= len(probe.measured) <= 2
    with pytest.raises(BudgetUnreachable, match=r"take 0\.[78]\d* ms on fake"):
        reachable(tiny_settings(budget__max_latency_ms=0.5), probe, tmp_path)


def test_an_absent_database_holds_no_study_and_is_not_created(place: Place):
    assert not existing_study(place.url, "digits")
    assert not (place.folder / "study.db").exists()


def test_a_database_that_does_not_answer_is_not_taken_for_one_without_the_study(place: Place):
    """Else a launch would begin the study anew, and find that another's files are in its way."""
    with pytest.raises(DatabaseUnavailable, match="can't be used"):
        existing_study("postgresql+psycopg://nobody@127.0.0.1:1/none", "digits")


def test_a_core_this_machine_does_not_have_is_refused(place: Place):
    with pytest.raises(InvalidSettings, match="the core must be one of"):
        place.launch("latency.core=9999")
    assert not (place.folder / "study.db").exists()


# -- pricing --


def test_equal_configs_are_priced_once_and_all_in_the_order_given(tmp_path: Path):
    one, *_, other = every_config(tiny_settings())
    probe = CountingProbe()
    first, second, third = price([one, other, one], probe, tmp_path)
    assert probe.measured == [one, other]
    assert first == third != second
    assert isinstance(first, Measurement)
    assert list(tmp_path.iterdir()) == []  # the exported networks are gone again


def test_a_config_that_cannot_be_measured_does_not_spoil_the_others(tmp_path: Path):
    def refuse(path: Path) -> float:
        raise MeasurementFailed("no")

    config = every_config(tiny_settings())[0]
    assert isinstance(price([config], CountingProbe(refuse), tmp_path)[0], FailedMeasurement)


def test_the_anchor_never_changes():
    """Its latencies are compared over years."""
    expected = CondenseNetConfig((2, 2, 2), (8, 16, 32), 4, 4, 4, None, 0.0, 10, (3, 32, 32), 1.0)
    assert expected == ANCHOR
    assert cost_of(ANCHOR).macs == 4_965_632


@pytest.mark.slow
def test_a_launch_keeps_its_study_while_its_engine_takes_longer_to_start_than_a_lease_lasts(tmp_path, monkeypatch):
    """Whoever stands by is on another host, as the launch sees it, and goes by the heartbeat."""
    lease_s = 3.0
    place = new_place(tmp_path)
    monkeypatch.setattr(transactions, "process_name", "elsewhere.example:{}".format)
    monkeypatch.setattr(controller_lease.ControllerLease, "lease_times", controller_lease.LeaseTimes.of_lease(lease_s))
    took_over: list[bool] = []

    def slow_start(*_: Any) -> Engine:
        engine, ends_at = open_for_writing(place.url), time.monotonic() + 1.5 * lease_s
        store = StudyStore(engine, reader.find_study(engine, "digits").id)
        store.me = "thirdhost.example:1"
        took_over.append(store.stand_by(lambda: time.monotonic() > ends_at, lambda text: None))
        engine.dispose()
        raise EngineUnavailable("it doesn't start after all")

    monkeypatch.setattr(launching, "make_engine", slow_start)
    with pytest.raises(EngineUnavailable):
        launch(place.settings(), place.url, False, SilentCallback())
    assert took_over == [False]
    engine = open_for_reading(place.url)
    assert reader.find_study(engine, "digits").controller is None
    engine.dispose()
