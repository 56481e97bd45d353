"""A launch from a study file to its end: images, database, budget, workers, controller."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import sqlalchemy as sa

from search.engines import make_engine
from search.loop.callbacks import LaunchCallback
from search.loop.controller import Controller, Ending
from search.loop.files import folder_of_trial
from search.loop.trainings import Images
from search.pricing.pricer import Target, price
from search.pricing.targets import choose_runtimes, known_runtimes, targets_of
from search.settings import LatencySettings, StudySettings, fit_to_data
from search.store import reader
from search.store.database import open_for_reading, open_for_writing, sqlite_file
from search.store.database_errors import url_shown
from search.store.patience import Patience
from search.store.rows import StudyRow
from search.study import OpenStudy, already_exists, open_study
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import (
    BudgetUnreachable,
    FrozenSettings,
    NotOurDatabase,
    ReadOnlyFolder,
    StudyNotFound,
)
from space.search_space import SearchSpace
from workers.files import disk_errors
from workers.images.cache import prepare
from workers.images.data_info import DataInfo
from workers.images.datasets import KNOWN
from workers.images.source import shape_of
from workers.latency.host_probe import measuring_cores
from workers.latency.measurement import FailedMeasurement

STOPPING = "stopping after the measurement or step under way; Ctrl-C again ends at once (checkpoints stay)"


@dataclass(frozen=True)
class Launched:
    """How a launch ended."""

    ending: Ending
    name: str
    done: int  # trainings, those that were ended early among them
    wanted: int


def launch(settings: StudySettings, url: str, resume: bool, view: LaunchCallback, stand_by: bool = False) -> Launched:
    """Run a study to its number of trainings; Ctrl-C once stops it cleanly, twice at once.

    With `stand_by`, while another process runs the study, wait until that ends or dies, and go on after it.

    Raises:
        CondenseryError: see `Controller.run`, `search.study.open_study` and `workers.images.cache.prepare`.
    """
    found = existing_study(url, settings.study.name)
    if found is not None and not resume:
        raise already_exists(settings.study.name)
    if resume and found is None:
        view.note(f"no study called {settings.study.name!r} in {url_shown(url)} yet: starting it")
    settings = with_files(settings, url, found)
    files, cache = study_files(settings, url), cache_folder(settings, url)
    cores = measuring_cores(settings.latency.core, settings.latency.threads)
    if found is None and files.exists() and any(files.iterdir()):
        raise ReadOnlyFolder(
            f"{files} holds the files of another study of this name; move it away, or set study.files or study.name."
        )
    with left_clean(files):
        with disk_errors(files):
            files.mkdir(parents=True, exist_ok=True)
        info = prepare(settings.data, cache)
        settings = fit_to_data(settings, info.input_shape, info.num_classes)
        engine, root = existing_engine(url), files_root(settings, url)
        if found is not None:
            settings = known_runtimes(settings, LatencySettings.model_validate(found.settings["latency"]))
        settings = choose_runtimes(settings, engine, root, view.note)
        targets = targets_of(settings, engine, root, view.note)
        if found is None:
            check_reachable(settings, targets, files)
        else:
            check_same(settings.study.name, url, info, targets)
        study = open_study(settings, url, resume)
    ending: Ending = "stopped"
    with interruptible(lambda: view.note(STOPPING)) as stop:
        study.store.patience = Patience(settings.limits.database_wait_s, view.note, stop.is_set)
        if not stand_by:
            study.store.claim()
        elif not study.store.stand_by(stop.is_set, view.note):
            return _ended(study, ending)
        with study.store.kept():
            for leftover in files.glob("pricing-*"):  # of a controller that was killed while it measured
                shutil.rmtree(leftover, ignore_errors=True)
            stored = partial(study.store.update_settings, settings.model_dump(mode="json"), settings.digest())
            study.store.transact(stored)
            study.store.transact(partial(study.store.set_data_info, info.to_dict()))
            view.note(describe_data(info))
            workers = make_engine(settings.engine, cores, view.note)
            try:
                images = Images(cache, info.fingerprint)
                controller = Controller(study, workers, targets, files=files, images=images, callback=view, stop=stop)
                ending = controller.run()
            finally:
                workers.close()
    return _ended(study, ending)


def _ended(study: OpenStudy, ending: Ending) -> Launched:
    counts = study.store.patience.call(partial(reader.count_states, study.engine, study.store.study_id))
    done = counts.get("done", 0) + counts.get("pruned", 0)
    return Launched(ending, study.settings.study.name, done, study.settings.study.trainings)


@contextmanager
def left_clean(files: Path) -> Iterator[None]:
    """Remove the study's folder when the block raises and nothing is in it. Never more: another launch may use it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            files.rmdir()
            files.parent.rmdir()
        raise


def existing_study(url: str, name: str) -> StudyRow | None:
    """Return the study of this name if the database holds it; an absent SQLite file holds none.

    Raises:
        DatabaseUnavailable: it can't be asked.
    """
    file = sqlite_file(url)
    if file is not None and not file.absolute().parent.is_dir():
        open_for_writing(url)  # says what is wrong, before any folder is made
    if file is not None and not file.exists():
        return None
    try:
        engine = open_for_reading(url)
    except NotOurDatabase:
        return None  # opening it for writing says what is wrong, or makes our tables beside Optuna's
    try:
        return reader.find_study(engine, name)
    except StudyNotFound:
        return None
    finally:
        engine.dispose()


def files_root(settings: StudySettings, url: str) -> Path:
    """Where all studies of a database keep their files: the setting, or `NAME-files` beside the database NAME.db."""
    if settings.study.files is not None:
        return Path(settings.study.files).expanduser().absolute()
    database = sqlite_file(url)
    if database is None:
        return Path.cwd() / "condensery-files"
    return database.absolute().parent / f"{database.stem}-files"


def study_files(settings: StudySettings, url: str) -> Path:
    """Where a study keeps its files."""
    return files_root(settings, url) / settings.study.name


def trial_folder(settings: StudySettings, url: str, number: int) -> Path:
    """Where a trial keeps its files."""
    return folder_of_trial(study_files(settings, url), number)


def cache_folder(settings: StudySettings, url: str) -> Path:
    """Where decoded images are, shared by the studies of one database."""
    return files_root(settings, url) / ".images"  # a study's name can't start with a dot


def existing_engine(url: str) -> sa.Engine | None:
    """Return the database opened for writing (device jobs live there), or None when it isn't there yet."""
    file = sqlite_file(url)
    return None if file is not None and not file.exists() else open_for_writing(url)


def budget_space(settings: StudySettings) -> SearchSpace:
    """Return the space as its images shape it, where that is known without reading them."""
    known, space = KNOWN.get(settings.data.dataset), settings.search_space()
    own = space.input_shape if known is None else known.shape
    return space.for_data(shape_of(settings.data, own), space.num_classes)


def describe_data(info: DataInfo) -> str:
    """One line about the images, with a word on imbalance where there is some."""
    channels, height, width = info.input_shape
    text = (
        f"{info.dataset}: {info.train_images} training, {info.validation_images} validation and {info.test_images} "
        f"test images, {channels}x{height}x{width}, {info.num_classes} classes"
    )
    return text + (f", the largest class {info.imbalance:.1f} times the smallest" if info.imbalance >= 1.5 else "")


def with_files(settings: StudySettings, url: str, found: StudyRow | None) -> StudySettings:
    """Return the settings with an absolute `study.files`; a study that exists keeps the folder it began with.

    Raises:
        FrozenSettings: the study file names another folder than the study's.
    """
    files = settings.study.files and str(files_root(settings, url))
    if found is not None:
        stored = found.settings["study"]["files"]
        before = settings.model_copy(update={"study": settings.study.model_copy(update={"files": stored})})
        if files is not None and Path(files) != files_root(before, url):
            raise FrozenSettings(
                f"study {settings.study.name!r} keeps its files in {files_root(before, url)}, but study.files now "
                f"means {files}; leave it out, or write the absolute path."
            )
        files = stored
    return settings.model_copy(update={"study": settings.study.model_copy(update={"files": files})})


def check_same(name: str, url: str, info: DataInfo, targets: Sequence[Target]) -> None:
    """Refuse to resume with other images or on another device: the results would not belong together.

    Raises:
        FrozenSettings: the images have changed, or the study's latencies were measured on another device.
    """
    engine = open_for_reading(url)
    try:
        found = reader.find_study(engine, name)
        devices = reader.devices_measured(engine, found.id)
    finally:
        engine.dispose()
    before = (found.data_info or {}).get("fingerprint", info.fingerprint)
    if before != info.fingerprint:
        raise FrozenSettings(
            f"the images of {info.dataset} have changed since study {name!r} began (files were added, removed or "
            "rewritten); put them back, or launch under another name."
        )
    now = {target.probe.device for target in targets}
    if devices - now:
        raise FrozenSettings(
            f"the latencies of study {name!r} were measured on {', '.join(sorted(devices))}, but this is "
            f"{', '.join(sorted(now))}; resume it there, or launch under another name."
        )


def cheapest(space: SearchSpace, cost: Callable[[CondenseNetConfig], float], seed: int = 0) -> CondenseNetConfig:
    """Return a config of (nearly) the smallest cost: the best of 64 samples, improved step by step by neighbours."""
    rng = np.random.default_rng(seed)
    best = min((space.sample(rng) for _ in range(64)), key=cost)
    while True:
        better = min(space.neighbours(best), key=cost, default=best)
        if cost(better) >= cost(best):
            return best
        best = better


def check_reachable(settings: StudySettings, targets: Sequence[Target], files: Path) -> None:
    """Refuse a budget below anything the space reaches, before anything is recorded.

    Raises:
        BudgetUnreachable: with the smallest cost found.
    """
    space, budget = settings.search_space(), settings.search_budget()
    fewest_macs = cheapest(space, lambda config: cost_of(config).macs)
    fewest_params = cheapest(space, lambda config: cost_of(config).params)
    for name, limit, smallest in (
        ("macs", budget.max_macs, cost_of(fewest_macs).macs),
        ("params", budget.max_params, cost_of(fewest_params).params),
    ):
        if limit is not None and smallest > limit:
            raise BudgetUnreachable(
                f"budget.max_{name} = {limit:,.0f} is below anything in this space: the smallest found has "
                f"{smallest:,} {name}; raise it or widen the space."
            )
    limited = [(target, target.limit_ms) for target in targets if target.limit_ms is not None]
    if not limited:
        return
    shallow = cheapest(space, lambda config: (sum(config.stages) + len(config.stages)) * 1e12 + cost_of(config).macs)
    for target, limit_ms in limited:
        prices = price([fewest_macs, shallow], target.probe, files)
        lows = [found.interval_low_ms for found in prices if not isinstance(found, FailedMeasurement)]
        if lows and min(lows) > limit_ms:
            raise BudgetUnreachable(
                f"budget.max_latency_ms = {limit_ms:g} is below anything in this space: the smallest networks "
                f"take {min(lows):.4g} ms on {target.probe.device}; raise it or widen the space."
            )


@contextmanager
def interruptible(first: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C (or SIGTERM) sets, calling `first`; the second interrupts at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        first()

    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are not ours to take
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
