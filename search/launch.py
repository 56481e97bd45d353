"""A launch: it prepares a study's images, database and devices, checks its budget, and runs its controller."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import sqlalchemy as sa

from search import warm_start
from search.data_fit import describe_data, fit_to_data
from search.engines import make_engine
from search.engines.base import Engine
from search.event_files import EventFiles, check_tensorboard
from search.loop.callbacks import LaunchCallback
from search.loop.controller import Controller, Ending
from search.loop.notify import Notifier, address_of
from search.loop.times import LoopTimes
from search.loop.trainings import Images
from search.machine_fit import check_machine, check_memory
from search.pricing.pricer import Target
from search.pricing.targets import choose_runtimes, known_runtimes, targets_of
from search.reachability import check_reachable
from search.replay.sources import Replay, check_same_table
from search.results.remarks import remarks_of_study, remarks_on_best
from search.settings import LatencySettings, StudySettings
from search.start_networks import Start, check_fits, check_unseen, find_starts, keep_starts, written_starts
from search.store import reader
from search.store.connection.database import open_for_reading, open_for_writing, sqlite_file
from search.store.connection.database_errors import url_shown
from search.store.connection.patience import Patience
from search.store.replayed import replayed_folder
from search.store.rows import StudyRow
from search.study import OpenStudy, already_exists, existing_study, open_study, refuse_foreign_study
from search.study_folders import cache_folder, files_root, own, refuse_anothers, study_files, with_places
from space.errors import (
    FrozenSettings,
    ReadOnlyFolder,
)
from workers.clock import Clock, SystemClock
from workers.file_names import SPLITS_FILE, TENSORBOARD
from workers.files import made_folder, write_atomically
from workers.images.cache import prepare
from workers.images.data_info import DataInfo
from workers.images.split_file import split_table
from workers.latency.host_probe import measuring_cores

# A replay's intervals: simulated time passes at once, and nothing in it can be silent.
SIMULATED = LoopTimes(poll_s=86_400.0, look_s=0.0, renew_s=600.0, reports_s=600.0, silent_s=math.inf, mirror_s=120.0)
STOPPING = "stopping after the measurement or step under way; Ctrl-C again ends at once (checkpoints stay)"


@dataclass(frozen=True)
class Launched:
    """How a launch ended."""

    ending: Ending
    name: str
    done: int  # trainings, including those that were ended early
    wanted: int  # trainings
    remarks: tuple[str, ...] = ()  # what speaks against the figures; see `search.results.remarks`


@dataclass(frozen=True)
class _Prepared:
    """A study that is ready to be run: it exists, its images are decoded and its budget can be reached."""

    study: OpenStudy
    settings: StudySettings  # with the shapes of the images and the chosen runtimes
    targets: tuple[Target, ...]
    files: Path
    cache: Path
    data: DataInfo
    cores: frozenset[int]  # that measure
    replay: Replay | None = None  # the table that stands in for images, devices and workers


def launch(
    settings: StudySettings, url: str, resume: bool, callback: LaunchCallback, stand_by: bool = False
) -> Launched:
    """Run a study until its trainings are done; the first Ctrl-C stops it cleanly, a second one at once.

    With `stand_by`, if another process runs the study, wait until that process ends or dies, then continue the study.

    Raises:
        CondenseryError: see `Controller.run`, `search.study.open_study` and `workers.images.cache.prepare`.
    """
    prepared = _prepare(settings, url, resume, callback)
    try:
        return _run_claimed(prepared, callback, stand_by)
    finally:
        prepared.study.engine.dispose()


def _run_claimed(prepared: _Prepared, callback: LaunchCallback, stand_by: bool) -> Launched:
    """Claim a study, at once or once no other process runs it, and run it."""
    store, settings = prepared.study.store, prepared.settings
    with interruptible(lambda: callback.note(STOPPING)) as stop:
        store.patience = Patience(settings.limits.database_wait_s, callback.note, stop.is_set)
        if not stand_by:
            store.claim()
        elif not store.stand_by(stop.is_set, callback.note):
            return _launched(prepared.study, "stopped")
        with store.kept(), Notifier(settings, callback) as notifier:
            ending = _run(prepared, notifier, stop)
            notifier.ended(ending)
    return _launched(prepared.study, ending)


def _prepare(settings: StudySettings, url: str, resume: bool, callback: LaunchCallback) -> _Prepared:
    """Decode the images, check what can be checked, and open the study."""
    name = settings.study.name
    stored = existing_study(url, name)
    if stored is not None and not resume:
        raise already_exists(name, url)
    if stored is None:
        refuse_foreign_study(url, name)
    if resume and stored is None:
        callback.note(f"no study called {name!r} in {url_shown(url)} yet: starting it")
    address_of(settings.notify)
    settings = with_places(settings, url, stored)
    files, cache = study_files(settings, url), cache_folder(settings, url)
    settings, starts = find_starts(settings, url, stored, files)
    replay, cores = None, frozenset[int]()
    if stored is not None:
        settings = warm_start.with_stored(settings, stored)
        refuse_anothers(files, url)
        check_same_table(settings, stored)
    if settings.replay.table is not None:
        replay = Replay.of(settings)
    else:
        check_machine(settings)
        cores = frozenset(measuring_cores(settings.latency.core, settings.latency.threads))
    if stored is None and files.exists() and any(files.iterdir()):
        raise ReadOnlyFolder(
            f"{files} holds the files of another study of this name; move it away, or set study.files or study.name."
        )
    if settings.study.tensorboard:
        check_tensorboard()
    with made_folder(files):
        if replay is not None:
            info, targets = replay.table.images, replay.targets()
        else:
            info = prepare(settings.data, cache)
            settings, targets = _fitted(settings, url, info, stored, callback)
            check_fits(settings, starts)
            check_unseen(settings.data, cache, starts, callback.note)
        if stored is None:
            warm = warm_start.read_warm_start(settings, url, info.to_dict())
            settings = settings if warm is None else warm_start.pinned(settings, warm)
        else:
            warm = warm_start.read_again(settings, url, info.to_dict(), files)
        if stored is None:
            check_reachable(settings, targets, files)
        else:
            check_same(name, url, info, targets)
        study = open_study(settings, url, resume)
        own(files, url)
        keep_starts(files, starts)
        if warm is not None:
            warm_start.keep(files, warm)
    for text in () if warm is None else warm_start.described(warm):
        callback.note(text)
    for start in starts:
        callback.note(f"trainings start from {start.name}: {start.network.config}")
    return _Prepared(study, settings, tuple(targets), files, cache, info, cores, replay)


def _fitted(
    settings: StudySettings, url: str, info: DataInfo, stored: StudyRow | None, callback: LaunchCallback
) -> tuple[StudySettings, tuple[Target, ...]]:
    """Return the settings with the images' shape and the runtimes that are used, and the study's devices."""
    settings = fit_to_data(settings, info)
    check_memory(settings)
    engine, root = existing_engine(url), files_root(settings, url)
    if stored is not None:
        settings = known_runtimes(settings, LatencySettings.model_validate(stored.settings["latency"]))
    settings = choose_runtimes(settings, engine, root, callback.note)
    return settings, targets_of(settings, engine, root, callback.note)


def _run(prepared: _Prepared, callback: LaunchCallback, stop: threading.Event) -> Ending:
    """Run a study that this process has claimed."""
    settings, store, files = prepared.settings, prepared.study.store, prepared.files
    for leftover in files.glob("pricing-*"):  # of a controller that was killed while it measured
        shutil.rmtree(leftover, ignore_errors=True)
    store.transact(partial(store.update_settings, settings.model_dump(mode="json"), settings.digest()))
    store.transact(partial(store.set_data_info, prepared.data.to_dict()))
    _write_splits(prepared)
    notes = prepared.data.notes
    for text in (describe_data(prepared.data), *notes, *remarks_of_study(prepared.data.to_dict(), None, "top1", "")):
        callback.note(text)
    engine, clock = _engine_and_clock(prepared, callback)
    with contextlib.ExitStack() as closing:
        closing.callback(engine.close)
        if settings.study.tensorboard:
            event_files = EventFiles(files / TENSORBOARD, store, callback, replayed_folder(settings.replay.table))
            closing.callback(event_files.close)
            callback = event_files
        controller = Controller(
            prepared.study,
            engine,
            prepared.targets,
            files=files,
            images=Images(prepared.cache, prepared.data.fingerprint),
            callback=callback,
            stop=stop,
            times=LoopTimes() if isinstance(clock, SystemClock) else SIMULATED,
            clock=clock,
        )
        return controller.run()


def _write_splits(prepared: _Prepared) -> None:
    """Write down which image is in which split, where the images are a user's own files."""
    if prepared.replay is None:
        table = split_table(prepared.settings.data, prepared.cache)
        if table is not None:
            write_atomically(prepared.files / SPLITS_FILE, table)


def _engine_and_clock(prepared: _Prepared, callback: LaunchCallback) -> tuple[Engine, Clock]:
    """Return who runs the study's trials, and the clock that they run by."""
    replay = prepared.replay
    if replay is None:
        return make_engine(prepared.settings.engine, prepared.cores, callback.note), SystemClock()
    callback.note(f"replaying {replay.table.name}: nothing is trained or measured")
    clock = replay.clock(prepared.study.store)
    return replay.engine(clock), clock


def _launched(study: OpenStudy, ending: Ending) -> Launched:
    status = study.store.patience.call(partial(reader.read_status, study.engine, study.store.study_id))
    settings, remarks = study.settings, tuple[str, ...]()
    if ending != "stopped":
        best = partial(remarks_on_best, study.engine, settings.study.name, settings.search_budget())
        remarks = study.store.patience.call(best)
    return Launched(ending, settings.study.name, status.trainings, settings.study.trainings, remarks)


def starts_of(settings: StudySettings, url: str, note: Callable[[str], None]) -> tuple[Start, ...]:
    """Return the networks that a launch of this study would start trainings from.

    `note` is told of which it isn't known whether they have seen the images that are held out.

    Raises:
        CondenseryError: see `search.start_networks.find_starts` and `check_unseen`.
    """
    if not written_starts(settings):
        return ()
    stored = existing_study(url, settings.study.name)
    placed = with_places(settings, url, stored)
    starts = find_starts(settings, url, stored, study_files(placed, url))[1]
    check_unseen(placed.data, cache_folder(placed, url), starts, note)
    return starts


def existing_engine(url: str) -> sa.Engine | None:
    """Return the database opened for writing (device jobs live there), or None when it isn't there yet."""
    file = sqlite_file(url)
    return None if file is not None and not file.exists() else open_for_writing(url)


def check_same(name: str, url: str, info: DataInfo, targets: Sequence[Target]) -> None:
    """Check that a resumed study has the images and devices that it began with, so that its results can be compared.

    Raises:
        FrozenSettings: the images have changed, or the study's latencies were measured on another device.
    """
    engine = open_for_reading(url)
    try:
        stored = reader.find_study(engine, name)
        own_devices = {*stored.settings["latency"]["devices"], *(target.name for target in targets)}
        devices = reader.devices_measured(engine, stored.id, sorted(own_devices))
    finally:
        engine.dispose()
    before = (stored.data_info or {}).get("fingerprint", info.fingerprint)
    if before != info.fingerprint:
        raise FrozenSettings(
            f"the images of {info.dataset} have changed since study {name!r} began (files were added, removed, "
            "rewritten or put into another split, or an earlier version read fewer of them); put them back, or launch "
            "under another name."
        )
    counts = ("train_images", "validation_images")
    if any((stored.data_info or {}).get(count, getattr(info, count)) != getattr(info, count) for count in counts):
        raise FrozenSettings(
            f"an earlier version chose other images by data.images when study {name!r} began, so that its networks "
            "couldn't be compared with new ones; launch under another name."
        )
    now = {target.probe.device for target in targets}
    if devices - now:
        raise FrozenSettings(
            f"the latencies of study {name!r} were measured on {', '.join(sorted(devices))}, but this is "
            f"{', '.join(sorted(now))}; resume it there, or launch under another name."
        )


@contextmanager
def interruptible(first: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C (or SIGTERM) sets, calling `first`; the second one interrupts at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        first()

    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
