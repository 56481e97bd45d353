"""What a sampler is told of an earlier study: the accuracies of its networks, kept among the new study's files.

`search.warm_start` names a study of ours, or a plain one of Optuna's whose parameters are those of the space. A launch
reads it once, keeps what can be taken, and adds the file's hash to the setting: whatever becomes of the earlier study,
proposals depend on the same observations. They are beliefs alone: the same networks may be proposed again, and nothing
of the earlier study counts as trained, or stands on the new one's front.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from search.samplers.observations import Observation, Params
from search.samplers.optuna_samplers import distributions
from search.settings import WARM_START, StudySettings
from search.store import optuna_mirror, reader
from search.store.connection.database import engine_options, open_any_for_reading
from search.store.connection.database_errors import database_errors, url_shown
from search.store.rows import StudyRow
from search.store.vocabulary import TrialState
from space.errors import (
    CheckpointCorrupt,
    CondenseryError,
    DatabaseVersion,
    FrozenSettings,
    InvalidConfig,
    InvalidSettings,
    StudyNotFound,
)
from workers.files import user_path, write_atomically
from workers.metrics import NAMES
from workers.settings import TrainingSettings
from workers.wording import counted

FILE = "warm-start.json"  # among a study's files
PIN_DIGITS = 16
MOST_REASONS = 3  # in a note


@dataclass(frozen=True)
class WarmStart:
    """What was read of an earlier study."""

    setting: str  # with its pin
    content: bytes  # of the file that is kept
    taken: int
    left_out: Mapping[str, int]  # how many trials, by the reason
    doubts: tuple[str, ...]  # why the observations may mislead


def read_warm_start(settings: StudySettings, url: str, data_info: Mapping[str, Any]) -> WarmStart | None:
    """Return what the study that `search.warm_start` names can tell this one; None if none is named.

    Args:
        settings: with the shape of the images.
        url: of the study's database, in which the earlier one is looked for unless its name ends in @DATABASE.
        data_info: of the new study's images.

    Raises:
        StudyNotFound, DatabaseUnavailable, NotOurDatabase: there is no such study.
        InvalidSettings: the sampler can't use it, or none of its trials can be taken.
    """
    if settings.search.warm_start is None:
        return None
    if settings.search.sampler != "price-aware":
        raise InvalidSettings(
            f"search.warm_start is for the price-aware sampler, but search.sampler is {settings.search.sampler!r}; "
            "leave one of them out."
        )
    named = WARM_START.fullmatch(settings.search.warm_start)
    assert named is not None, "the settings were validated"
    left_out: Counter[str] = Counter()
    observations, doubts = _read(named["study"], _database_of(named["database"], url), settings, data_info, left_out)
    if not observations:
        why = "; ".join(f"{count}: {reason}" for reason, count in left_out.most_common(MOST_REASONS))
        raise InvalidSettings(
            f"search.warm_start = {named['study']!r}: none of its trials can be taken "
            f"({why or 'it has none that is done'}); name another study, or leave it out."
        )
    document = {"study": named["study"], "observations": [[one.params, one.score] for one in observations]}
    content = json.dumps(document, sort_keys=True).encode()
    setting = f"{_unpinned(settings.search.warm_start)}#{_pin(content)}"
    return WarmStart(setting, content, len(observations), dict(left_out), doubts)


def described(warm: WarmStart) -> list[str]:
    """Return what is to be said of a warm start, a sentence each."""
    said = [f"the sampler begins with {counted(warm.taken, 'network')} of {_unpinned(warm.setting)}"]
    for reason, count in Counter(warm.left_out).most_common(MOST_REASONS):
        said.append(f"left out of {_unpinned(warm.setting)}: {counted(count, 'trial')}: {reason}")
    return [*said, *warm.doubts]


def pinned(settings: StudySettings, warm: WarmStart) -> StudySettings:
    """Return the settings with the hash of what was read."""
    return settings.model_copy(update={"search": settings.search.model_copy(update={"warm_start": warm.setting})})


def keep(files: Path, warm: WarmStart) -> None:
    """Write a warm start among a study's files."""
    write_atomically(files / FILE, warm.content)


def with_stored(settings: StudySettings, stored: StudyRow) -> StudySettings:
    """Return a resumed study's settings with the warm start that it began with, whatever the file says of none.

    Raises:
        FrozenSettings: the settings name another one.
    """
    before = (stored.settings.get("search") or {}).get("warm_start")
    now = settings.search.warm_start
    if now is not None and (before is None or _unpinned(now) != _unpinned(before)):
        began = "without a warm start" if before is None else f"with that of {_unpinned(before)!r}"
        raise FrozenSettings(f"study {stored.name!r} began {began}, so it can't get another one; leave it out.")
    return settings.model_copy(update={"search": settings.search.model_copy(update={"warm_start": before})})


def read_again(settings: StudySettings, url: str, data_info: Mapping[str, Any], files: Path) -> WarmStart | None:
    """Return a resumed study's warm start if its file is gone and the earlier study still says the same."""
    if settings.search.warm_start is None or (files / FILE).is_file():
        return None
    with contextlib.suppress(CondenseryError):
        warm = read_warm_start(settings, url, data_info)
        return warm if warm is not None and warm.setting == settings.search.warm_start else None
    return None


def kept(files: Path, setting: str | None) -> tuple[Observation, ...]:
    """Return the observations of a study's warm start; none if it has none.

    Raises:
        CheckpointCorrupt: the file that keeps them is gone or changed.
    """
    if setting is None:
        return ()
    try:
        content = (files / FILE).read_bytes()
    except OSError:
        content = b""
    if _pin(content) != setting.rpartition("#")[2]:
        raise CheckpointCorrupt(
            f"{files / FILE} must be what the study's sampler began with, but is gone or changed; put it back from a "
            "copy."
        )
    return tuple(Observation(params, score) for params, score in json.loads(content)["observations"])


def _pin(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:PIN_DIGITS]


def _unpinned(setting: str) -> str:
    named = WARM_START.fullmatch(setting)
    return setting if named is None or named["pin"] is None else setting.rpartition("#")[0]


def _database_of(named: str | None, url: str) -> str:
    if named is None:
        return url
    return named if "://" in named else f"sqlite:///{user_path(named).absolute()}"


def _read(
    name: str, url: str, settings: StudySettings, data_info: Mapping[str, Any], left_out: Counter[str]
) -> tuple[list[Observation], tuple[str, ...]]:
    """Return the observations of a study in a database, ours or Optuna's, and what speaks against them."""
    engine = open_any_for_reading(url)
    if engine is None:
        raise StudyNotFound(f"search.warm_start = {name!r}: there is no database {url_shown(url)}; correct it.")
    try:
        with database_errors(url):
            with engine.connect() as connection:
                is_ours, is_optunas = (
                    holds(connection, name) for holds in (reader.holds_study, optuna_mirror.holds_study)
                )
            if is_ours:
                return _of_ours(engine, name, settings, data_info, left_out)
            if is_optunas:
                return list(_of_optunas(name, url, settings, left_out)), ()
    finally:
        engine.dispose()
    raise StudyNotFound(f"search.warm_start = {name!r}: {url_shown(url)} holds no study of this name; correct it.")


def _of_ours(
    engine: sa.Engine, name: str, settings: StudySettings, data_info: Mapping[str, Any], left_out: Counter[str]
) -> tuple[list[Observation], tuple[str, ...]]:
    study, objective = reader.find_study(engine, name), settings.study.objective
    space, fixed = settings.search_space(), settings.training_space()
    observations, other_training = [], 0
    for row in reader.read_trials(engine, study.id, states=[TrialState.DONE]):
        score = getattr(row, objective)
        if score is None:
            left_out[f"its {NAMES[objective]} isn't recorded"] += 1
            continue
        try:
            config = replace(row.config, input_shape=space.input_shape, num_classes=space.num_classes)
            params = space.to_params(config)
        except InvalidConfig:
            left_out["its network lies outside the space"] += 1
            continue
        training = TrainingSettings.model_validate({**row.training, "start": fixed.fixed.start})
        varied = {one: getattr(training, one) for one in fixed.domains}
        if not all(fixed.domains[one].contains(value) for one, value in varied.items()):
            left_out["its training settings lie outside the study's"] += 1
            continue
        other_training += any(getattr(training, one) != getattr(fixed.fixed, one) for one in _compared(fixed.domains))
        observations.append(Observation({**params, **varied}, float(score)))
    doubts = []
    if (study.data_info or {}).get("fingerprint") != data_info.get("fingerprint"):
        doubts.append(f"the images of {name} are others, so its accuracies may mislead the sampler")
    if other_training:
        doubts.append(
            f"{counted(other_training, 'network')} of {name} were trained by other settings, so their accuracies may "
            "mislead the sampler"
        )
    return observations, tuple(doubts)


def _compared(varied: Iterable[str]) -> list[str]:
    """Return the training settings by which accuracies of two studies differ."""
    return [name for name in TrainingSettings.model_fields if name not in {*varied, "start"}]


def _of_optunas(name: str, url: str, settings: StudySettings, left_out: Counter[str]) -> Iterable[Observation]:
    """Yield what a plain Optuna study knows: its complete trials whose parameters are a network of the space."""
    try:
        storage = RDBStorage(url, engine_options(url), skip_table_creation=True)  # nothing is written there
    except RuntimeError as error:  # the tables are those of another version of Optuna
        raise DatabaseVersion(f"{url_shown(url)}: {' '.join(str(error).split())[:200]}") from None
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        place = _place_of_score(study, settings)
        trials = study.get_trials(deepcopy=False)
    finally:
        storage.engine.dispose()
    for trial in trials:
        if trial.state != OptunaState.COMPLETE or trial.values is None:
            left_out[f"it is {trial.state.name.lower()}"] += 1
            continue
        score = float(trial.values[place])
        if not (math.isfinite(score) and 0.0 <= score <= 1.0):
            left_out["its value is no fraction from 0 to 1"] += 1
            continue
        params = _params_of(trial.params, settings)
        if params is None:
            left_out["its parameters are no network of the space"] += 1
            continue
        yield Observation(params, score)


def _place_of_score(study: optuna.Study, settings: StudySettings) -> int:
    """Return which of an Optuna study's values is the score: by its name, else the only one that is maximised.

    Raises:
        InvalidSettings: that isn't clear.
    """
    names, objective = study.metric_names or [], settings.study.objective
    if objective in names:
        return names.index(objective)
    maximised = [place for place, one in enumerate(study.directions) if one == StudyDirection.MAXIMIZE]
    if len(maximised) != 1:
        raise InvalidSettings(
            f"search.warm_start = {study.study_name!r}: one value of an Optuna study must be maximised, the "
            f"{NAMES[objective]}, but {len(maximised)} are; name its metrics by set_metric_names."
        )
    return maximised[0]


def _params_of(given: Mapping[str, Any], settings: StudySettings) -> Params | None:
    """Return the parameters of the space that a trial of Optuna's names; None unless it names a network of it whole.

    A parameter of which there is only one value need not be named.
    """
    space, training = settings.search_space(), settings.training_space()
    try:
        config = space.from_params(given)
        params = {**space.to_params(config), **training.to_params(training.from_params(given))}
    except (InvalidConfig, InvalidSettings, KeyError, TypeError, ValueError):
        return None
    needed = distributions({**space.domains, **training.domains})
    named = all(name in given and given[name] == value for name, value in params.items() if name in needed)
    return params if named and given.keys() <= {*space.domains, *training.domains} else None
