"""Configs of a user's own, to be tried next: what they leave out comes from the study's best network, or its middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from search.enqueueing.completing import completed_config, middle_config
from search.results.pick import rank
from search.settings import StudySettings
from search.store.rows import TrialRow
from space.config import CondenseNetConfig
from space.documents import UnreadableDocument, did_you_mean, read_json
from space.errors import InvalidConfig, InvalidSettings
from space.search_space import SearchSpace
from workers.settings import TrainingSettings

TRAINING = "training"  # the key of a config's JSON under which training settings may stand


def read_config(text: str) -> dict[str, Any]:
    """Return the values of a config's JSON text.

    Raises:
        InvalidConfig: it is no JSON object, or its training settings aren't one.
    """
    try:
        values = read_json(text)
    except UnreadableDocument as error:
        raise InvalidConfig(f"a config must be a JSON object, but got {text[:60]!r} ({error}).") from None
    if not isinstance(values, dict) or not isinstance(values.get(TRAINING, {}), dict):
        raise InvalidConfig(f"a config, and `training` in it, must be JSON objects, but got {text[:60]!r}.")
    return values


def completed(
    values: Mapping[str, Any], settings: StudySettings, rows: Sequence[TrialRow]
) -> tuple[CondenseNetConfig, TrainingSettings, str]:
    """Return the config and the training settings of these values, and in words where the rest is from.

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
    return config, _trained_by(training, values.get(TRAINING, {})), source


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
