"""The trained networks that a study's trainings start from: found, checked, pinned, and kept among the study's files.

`training.start` names a trial or a bundle. A launch reads it once, adds the network's pin (`workers.training.start`) to
the setting and keeps a copy: whatever becomes of the trial or the bundle, the study goes on from the same network.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from search.results.bundle.facts import DEPLOY_FILE, WEIGHTS
from search.results.trained_files import read_trained, recorded_files
from search.settings import StudySettings
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.rows import StudyRow
from space.config import CondenseNetConfig
from space.documents import UnreadableDocument, read_toml
from space.errors import (
    CheckpointCorrupt,
    CondenseryError,
    FrozenSettings,
    InvalidConfig,
    InvalidSettings,
)
from space.growths import SAME
from space.search_space import SearchSpace
from workers.file_names import NETWORK_FILE, SPLITS_FILE
from workers.files import user_path, write_atomically
from workers.images.cache import FoundImages, find_decoded, find_listed
from workers.images.split_file import SplitRow, read_split_rows, split_rows
from workers.settings import NO_START, START, DataSettings
from workers.training.start import StartNetwork, pin_of, start_file, without_pin
from workers.wording import counted

MOST_BITS_OF_ONE_PICTURE = 16  # of 64 that differ in one picture's hashes at two sizes; in those of two, about 32 do


@dataclass(frozen=True)
class TrainedOn:
    """The images that a network was trained on, as far as that is known."""

    fingerprint: str = ""  # see `workers.images.data_info.DataInfo`
    data: DataSettings | None = None  # which say which of them were in which split
    rows: Sequence[SplitRow] | None = None  # of its `SPLITS_FILE`


@dataclass(frozen=True)
class Start:
    """One value of `training.start` and the network that it names."""

    setting: str  # with the network's pin
    network: StartNetwork
    trained_on: TrainedOn | None = field(default=None, compare=False)  # None: of the study's copy

    @property
    def name(self) -> str:
        """The setting as a user writes it."""
        return without_pin(self.setting)

    @property
    def file(self) -> str:
        """The name of the network's copy among the study's files."""
        return cast(str, start_file({"start": self.setting}))


def find_starts(
    settings: StudySettings, url: str, stored: StudyRow | None = None, files: Path | None = None
) -> tuple[StudySettings, tuple[Start, ...]]:
    """Return the settings with pinned starts, and these starts; nothing is written.

    Args:
        settings: of the study.
        url: of the study's database, in which a trial is looked for unless its start names another.
        stored: the study, if it exists; a start that it has keeps its pin.
        files: the study's folder, where it keeps copies.

    Raises:
        CondenseryError: a start names no trained network, or one whose files are gone or changed.
        FrozenSettings: it names another network than when the study began, whose copy is gone.
    """
    pinned = {without_pin(start): start for start in ([] if stored is None else _values(stored.settings["training"]))}
    starts = {start: _found(start, url, pinned.get(without_pin(start)), files) for start in written_starts(settings)}
    if not starts:
        return settings, ()
    values = [starts[start].setting if start in starts else start for start in _values(settings.training)]
    varied = isinstance(settings.training["start"], list)
    training = {**settings.training, "start": values if varied else values[0]}
    return settings.model_copy(update={"training": training}), tuple(starts.values())


def written_starts(settings: StudySettings) -> list[str]:
    """Return what a study's settings name to start from."""
    return [start for start in _values(settings.training) if start != NO_START]


def _values(training: Mapping[str, Any]) -> list[str]:
    """Return the values of `start` in settings as `TrainingSpace.to_settings` writes them."""
    value = training.get("start", NO_START)
    return [str(start) for start in (value if isinstance(value, list | tuple) else [value])]


def _found(start: str, url: str, pinned: str | None, files: Path | None) -> Start:
    """Return the network of a start: the study's copy where it has one, else from where the start says it is."""
    expected = pin_of(start) or (None if pinned is None else pin_of(pinned))
    kept = start_file({"start": f"{without_pin(start)}#{expected}"})
    if expected is not None and files is not None and kept is not None:
        with contextlib.suppress(OSError, CheckpointCorrupt):
            network = StartNetwork.of_file((files / kept).read_bytes())
            if network.pin == expected:
                return Start(f"{without_pin(start)}#{expected}", network)
    with _named(start):
        network, trained_on = _read(start, url)
        if expected is not None and network.pin != expected:
            where = "" if files is None else f", whose copy {files / str(kept)} is gone"
            raise FrozenSettings(
                f"this is not the network {expected} that was meant{where}; put that back, or launch another study."
            )
    return Start(f"{without_pin(start)}#{network.pin}", network, trained_on)


@contextlib.contextmanager
def _named(start: str) -> Iterator[None]:
    """Begin the message of every error with the setting."""
    try:
        yield
    except CondenseryError as error:
        raise type(error)(f"training.start = {without_pin(start)!r}: {error}") from None


def _read(start: str, url: str) -> tuple[StartNetwork, TrainedOn]:
    named = START.fullmatch(start)
    assert named is not None, "the settings were validated"
    if named["bundle"] is not None:
        folder = user_path(named["bundle"])
        return _of_bundle(folder), TrainedOn(rows=_rows_in(folder))
    if named["database"] is not None:
        url = f"sqlite:///{user_path(named['database']).absolute()}"
    return _of_trial(url, named["study"], int(named["trial"]))


def _rows_in(folder: Path) -> list[SplitRow] | None:
    """Return what a folder's `SPLITS_FILE` says, if it is there."""
    try:
        return read_split_rows((folder / SPLITS_FILE).read_bytes())
    except OSError:
        return None


def _of_trial(url: str, study_name: str, number: int) -> tuple[StartNetwork, TrainedOn]:
    """Return the network of a finished trial, and what it was trained on as far as that was recorded.

    Raises:
        StudyNotFound, TrialNotFound, TrialNotReady, CheckpointCorrupt, DatabaseUnavailable: there is none.
    """
    engine = open_for_reading(url)
    try:
        study = reader.find_study(engine, study_name)
        row = reader.find_trial(engine, study, number)
        weights = read_trained(engine, row, NETWORK_FILE)
        files = Path(recorded_files(engine, row, (NETWORK_FILE,))[NETWORK_FILE]["path"]).parent.parent
    finally:
        engine.dispose()
    info = study.data_info or {}
    network = StartNetwork.of_weights(row.config, tuple(map(str, info.get("class_names", ()))), weights)
    data = DataSettings.model_validate(study.settings["data"])
    return network, TrainedOn(str(info.get("fingerprint") or ""), data, _rows_in(files))


def _of_bundle(folder: Path) -> StartNetwork:
    """Return the network of a bundle, whose weights have the hash that its deploy.toml names.

    Raises:
        InvalidSettings: there is no bundle. CheckpointCorrupt: its weights have changed.
    """
    try:
        deploy = read_toml((folder / DEPLOY_FILE).read_text(encoding="utf-8"))
        weights = (folder / NETWORK_FILE).read_bytes()
    except (OSError, UnicodeDecodeError, UnreadableDocument) as error:
        raise InvalidSettings(f"{folder} is no bundle ({error}); name the folder that `pick` wrote.") from None
    try:
        sha256, config = deploy[WEIGHTS]["sha256"], CondenseNetConfig.from_dict(deploy["config"])
        names = tuple(map(str, deploy["classes"]["names"]))
    except InvalidConfig as error:
        raise InvalidSettings(f"the config in {folder / DEPLOY_FILE} is not valid: {error}") from None
    except (KeyError, TypeError):
        raise InvalidSettings(
            f"{folder / DEPLOY_FILE} lacks the config, the classes or the hash of the weights; pick the bundle again."
        ) from None
    if len(names) != config.num_classes:
        raise InvalidSettings(
            f"{folder / DEPLOY_FILE} must name the classes of its network, which has {config.num_classes}, but names "
            f"{len(names)}; pick the bundle again."
        )
    if hashlib.sha256(weights).hexdigest() != sha256:
        raise CheckpointCorrupt(
            f"{folder / NETWORK_FILE} is not the file that {DEPLOY_FILE} names (its SHA-256 differs); copy the bundle "
            "again."
        )
    return StartNetwork.of_weights(config, names, weights)


def check_fits(settings: StudySettings, starts: Sequence[Start]) -> None:
    """Check that some network of the space can begin with the stem and a layer of each start.

    Args:
        settings: with the shape of the images (`search.data_fit.fit_to_data`).
        starts: of the study.

    Raises:
        InvalidSettings: none can; the message says what differs.
    """
    space = settings.search_space()
    for start in starts:
        reason = _misfit(space, start.network.config)
        if reason is not None:
            raise InvalidSettings(
                f"training.start = {start.name!r}: no layer of it fits any network of the space: {reason}."
            )


def check_unseen(data: DataSettings, cache: Path, starts: Sequence[Start], note: Callable[[str], None]) -> None:
    """Check that no start has learned from what are validation or test images now.

    Args:
        data: the study's settings.
        cache: where its images are if they are decoded; what only their pixels tell is not known before.
        starts: of the study.
        note: is told of each start of which it isn't known.

    Raises:
        InvalidSettings: one has.
    """
    read_now = [(start, start.trained_on) for start in starts if start.trained_on is not None]
    if not read_now:
        return
    images = find_decoded(data, cache) or find_listed(data)
    for start, trained_on in read_now:
        try:
            seen, judging = _seen(data, images, trained_on)
        except _Unknown as reason:
            note(f"whether {start.name} has learned from images that are held out now isn't known: {reason}")
            continue
        if seen:
            raise InvalidSettings(
                f"training.start = {start.name!r}: its network learned from {seen:,} of the {judging:,} images "
                "that are held out for validation and test now, so every figure would look better than it is; take "
                "over the [data] settings of its study that make the splits, such as split_seed, or start from another."
            )


class _Unknown(Exception):
    """It isn't known which images a network learned from; says why."""


def _seen(data: DataSettings, images: FoundImages, then: TrainedOn) -> tuple[int, int]:
    """Return how many of the images that are held out now a network learned from, and how many are held out.

    Raises:
        _Unknown: nothing tells.
    """
    rows = split_rows(data, images)
    same_set = then.data is not None and then.data.dataset == data.dataset
    if then.data is not None and (then.fingerprint == images.fingerprint != "" or (same_set and rows is None)):
        now, before = images.published.places(data), images.published.places(then.data)
        judging = now.validation if now.test is None else np.concatenate([now.validation, now.test])
        return int(np.isin(judging, before.train).sum()), len(judging)
    if rows is None or then.rows is None:
        raise _Unknown("nothing says which files it learned from")
    is_final = images.arrays is not None or data.unreadable == "error"  # else files may drop out, and splits differ
    return _seen_by_name(rows, then.rows, same_set and is_final)


def _seen_by_name(rows: Sequence[SplitRow], then: Sequence[SplitRow], same_set: bool) -> tuple[int, int]:
    """Return how many rows that are held out are, by name, label and picture, among those that were learned from.

    Other images may have the same names: so they are the same only if most pictures of equal names are alike.
    """
    before = {(row.file, row.label): row for row in then}
    pairs = [(row, before[row.file, row.label]) for row in rows if (row.file, row.label) in before]
    compared = [_is_alike(row, other) for row, other in pairs if row.picture and other.picture]
    judging = sum(row.split in ("validation", "test") for row in rows)
    if compared and sum(compared) * 2 < len(compared):
        return 0, judging
    held = [pair for pair in pairs if pair[0].split in ("validation", "test") and pair[1].split == "train"]
    seen = sum(not (row.picture and other.picture) or _is_alike(row, other) for row, other in held)
    if seen and not compared and not same_set:
        if any(row.picture for row in then):
            raise _Unknown("files of the same names and labels were, and a launch compares how they look")
        raise _Unknown("files of the same names and labels were")
    return seen, judging


def _is_alike(row: SplitRow, other: SplitRow) -> bool:
    return (int(row.picture, 16) ^ int(other.picture, 16)).bit_count() <= MOST_BITS_OF_ONE_PICTURE


def _misfit(space: SearchSpace, source: CondenseNetConfig) -> str | None:
    """Return why no network of a space has a layer that can begin as in `source`; None if one has."""
    channels, theirs = space.input_shape[0], source.input_shape[0]
    if channels != theirs:
        return f"its images have {counted(theirs, 'channel')}, these have {channels}; set data.channels = {theirs}"
    groups_3x3 = SAME if source.groups_3x3 is None else source.groups_3x3
    same = groups_3x3 if space.groups_3x3.contains(groups_3x3) else source.conv3x3_groups
    wanted = (
        ("groups", space.groups, source.groups),
        ("condense_factor", space.condense_factor, source.condense_factor),
        ("bottleneck", space.bottleneck, source.bottleneck),
        ("groups_3x3", space.groups_3x3, same),
        ("growth", space.growth[0], source.growth[0]),
    )
    for name, domain, value in wanted:
        if not domain.contains(value):
            first = " of the first stage" if name == "growth" else ""
            return f"its {name}{first} is {value}, which space.{name} doesn't hold; add it"
    return None


def keep_starts(files: Path, starts: Sequence[Start]) -> None:
    """Write the networks that a study starts from among its files, unless they are there.

    Raises:
        DiskFull, ReadOnlyFolder: they can't be written.
    """
    for start in starts:
        path, content = files / start.file, start.network.content
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:
                continue
        write_atomically(path, content)
