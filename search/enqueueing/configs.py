"""Configs of a user's own, to be tried next: what they leave out comes from the study's best network, or its middle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from search.budget import refusal
from search.enqueueing.completing import completed_config, middle_config
from search.results.ranking import rank
from search.settings import StudySettings
from search.start_networks import written_starts
from search.store.rows import TrialRow
from search.store.vocabulary import MAY_BE_TRIED_AGAIN
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.documents import UnreadableDocument, did_you_mean, read_json
from space.errors import InvalidConfig, InvalidSettings
from space.search_space import SearchSpace
from workers.settings import NO_START, TrainingSettings
from workers.training.job import trial_identity
from workers.training.start import without_pin

TRAINING = "training"  # the key of a config's JSON under which training settings may stand


def read_config(text: str) -> dict[str, Any]:
    """Return the values of a config's JSON text.

    Raises:
        InvalidConfig: it is no JSON object, or its training settings aren't one.
    """
    try:
        values = read_json(text)
        json.dumps(values, allow_nan=False)
    except UnreadableDocument as error:
        raise InvalidConfig(f"a config must be a JSON object, but got {text[:60]!r} ({error}).") from None
    except ValueError:
        raise InvalidConfig(f"a config's numbers must be finite, but got {text[:60]!r}; mend them.") from None
    if not isinstance(values, dict) or not isinstance(values.get(TRAINING, {}), dict):
        raise InvalidConfig(f"a config, and `training` in it, must be JSON objects, but got {text[:60]!r}.")
    return values


@dataclass(frozen=True)
class Completed:
    """A config with its training settings, as it will be tried."""

    config: CondenseNetConfig
    training: TrainingSettings
    source: str  # in words, where the settings are from that were left out
    changed: Mapping[str, tuple[Any, Any]]  # those that are other than there, since what was given rules them out


def completed(values: Mapping[str, Any], settings: StudySettings, rows: Sequence[TrialRow]) -> Completed:
    """Return the config and the training settings of these values, and where the rest is from.

    Args:
        values: of a config's JSON, `training` among them.
        settings: the study's.
        rows: its trials.

    Raises:
        InvalidConfig: the values make no valid config. InvalidSettings: it is for other images, or the training
            settings are wrong.
    """
    space, best = settings.search_space(), rank(rows, settings.search_budget())[:1]
    base = best[0].config if best else middle_config(space)
    architecture = {key: value for key, value in values.items() if key != TRAINING}
    config = completed_config(architecture, base, space)
    _check_images(config, space)
    training = TrainingSettings(**best[0].training) if best else settings.training_space().middle()
    source = f"trial {best[0].number}, the best so far" if best else "the middle of the space"
    there, here = base.to_dict(), config.to_dict()
    changed = {key: (there[key], here[key]) for key in here if key not in architecture and there[key] != here[key]}
    trained_by = _with_known_start(_trained_by(training, values.get(TRAINING, {})), settings)
    return Completed(config, trained_by, source, changed)


def _with_known_start(training: TrainingSettings, settings: StudySettings) -> TrainingSettings:
    """Return the settings with the start as the study has it, which keeps a copy of no other network.

    Raises:
        InvalidSettings: the study has no such start.
    """
    known = {NO_START: NO_START, **{without_pin(start): start for start in written_starts(settings)}}
    start = known.get(without_pin(training.start))
    if start is None or training.start not in (start, without_pin(start)):
        raise InvalidSettings(
            f"training.start must be one of the study's ({', '.join(map(repr, known))}), but got "
            f"{without_pin(training.start)!r}; launch a study that names it."
        )
    return training.model_copy(update={"start": start})


def why_refused(wanted: Completed, settings: StudySettings, rows: Sequence[TrialRow]) -> str | None:
    """Return why the search will not train a config, as far as that is known before it is measured; None: it may."""
    identity = trial_identity(wanted.config, wanted.training, settings.data, settings.training_seed)
    for row in rows:
        if row.identity == identity and row.state not in MAY_BE_TRIED_AGAIN:
            return f"it is the same as trial {row.number}"
    cost = cost_of(wanted.config)
    return refusal(settings.search_budget(), cost.macs, cost.params, None)


def _trained_by(base: TrainingSettings, values: Mapping[str, Any]) -> TrainingSettings:
    try:
        return TrainingSettings.model_validate(base.model_dump() | dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(key, TrainingSettings.model_fields)
            raise InvalidSettings(f"unknown key `training.{key}`. {hint}") from None
        raise InvalidSettings(f"`training.{key}`: {first['msg']}, but got {first['input']!r}.") from None


def _check_images(config: CondenseNetConfig, space: SearchSpace) -> None:
    if (config.input_shape, config.num_classes) != (space.input_shape, space.num_classes):
        raise InvalidSettings(
            f"the study's images need input_shape={list(space.input_shape)}, num_classes={space.num_classes}, but the "
            f"config has {list(config.input_shape)}, {config.num_classes}."
        )
