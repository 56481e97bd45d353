"""The trained networks that a study's trainings start from: found, checked, pinned, and kept among the study's files.

`training.start` names a trial or a bundle. A launch reads it once, adds the network's pin (`workers.training.start`) to
the setting and keeps a copy: whatever becomes of the trial or the bundle, the study goes on from the same network.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from search.results.bundle.facts import DEPLOY_FILE, WEIGHTS
from search.results.trained_files import read_trained
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
from workers.file_names import NETWORK_FILE
from workers.files import user_path, write_atomically
from workers.images.cache import Decoded
from workers.settings import NO_START, START, DataSettings
from workers.training.start import StartNetwork, pin_of, start_file, without_pin
from workers.wording import counted


@dataclass(frozen=True)
class TrainedOn:
    """The images that a trial was trained on."""

    fingerprint: str  # see `workers.images.data_info.DataInfo`
    data: DataSettings  # which say which of them were in which split


@dataclass(frozen=True)
class Start:
    """One value of `training.start` and the network that it names."""

    setting: str  # with the network's pin
    network: StartNetwork
    trained_on: TrainedOn | None = field(default=None, compare=False)  # of a trial that was read now

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


def _read(start: str, url: str) -> tuple[StartNetwork, TrainedOn | None]:
    named = START.fullmatch(start)
    assert named is not None, "the settings were validated"
    if named["bundle"] is not None:
        return _of_bundle(user_path(named["bundle"])), None
    if named["database"] is not None:
        url = f"sqlite:///{user_path(named['database']).absolute()}"
    return _of_trial(url, named["study"], int(named["trial"]))


def _of_trial(url: str, study_name: str, number: int) -> tuple[StartNetwork, TrainedOn | None]:
    """Return the network of a finished trial, and what it was trained on if that was recorded.

    Raises:
        StudyNotFound, TrialNotFound, TrialNotReady, CheckpointCorrupt, DatabaseUnavailable: there is none.
    """
    engine = open_for_reading(url)
    try:
        study = reader.find_study(engine, study_name)
        row = reader.find_trial(engine, study, number)
        weights = read_trained(engine, row, NETWORK_FILE)
    finally:
        engine.dispose()
    info = study.data_info or {}
    network = StartNetwork.of_weights(row.config, tuple(map(str, info.get("class_names", ()))), weights)
    if not info.get("fingerprint"):
        return network, None
    return network, TrainedOn(str(info["fingerprint"]), DataSettings.model_validate(study.settings["data"]))


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


def check_unseen(data: DataSettings, images: Decoded, starts: Sequence[Start]) -> None:
    """Check that no start has learned from what are validation or test images now.

    Only of a trial of the very same images is it known which it learned from.

    Args:
        data: the study's settings.
        images: that they name.
        starts: of the study.

    Raises:
        InvalidSettings: one has.
    """
    for start in starts:
        known = start.trained_on
        if known is None or known.fingerprint != images.fingerprint:
            continue
        now, then = images.published.places(data), images.published.places(known.data)
        judging = now.validation if now.test is None else np.concatenate([now.validation, now.test])
        learned = np.union1d(then.train, then.validation) if known.data.with_validation else then.train
        if seen := int(np.isin(judging, learned).sum()):
            raise InvalidSettings(
                f"training.start = {start.name!r}: its network learned from {seen:,} of the {len(judging):,} images "
                "that are held out for validation and test now, so every figure would look better than it is; take "
                "over the [data] settings of its study that make the splits, such as split_seed, or start from another."
            )


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
