"""The study file: TOML in, `StudySettings` out; every unknown key is an error that suggests the nearest valid one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.settings import FORMAT, StudySettings
from space.documents import DEEPEST, UnreadableDocument, did_you_mean, read_toml
from space.errors import InvalidSettings, StudyFileVersion
from workers.settings import Settings

SECRET = (("notify", "webhook"), ("search", "warm_start"))  # settings whose values no message shows
LONGEST_VALUE = 200  # letters of a wrong value that an error shows


def load_settings(path: Path, overrides: Iterable[str] = ()) -> StudySettings:
    """Read a study file; `overrides` are `a.b=value` with the value as TOML writes it (a bare word is a string).

    Raises:
        InvalidSettings: the file is missing or isn't TOML, a key is unknown or a value is wrong.
        StudyFileVersion: the file has another `format`.
        ImpossibleSpace: the space holds no network.
        TableUnreadable: the study replays a table that isn't there or is damaged.
    """
    document = read_document(path, overrides)
    if isinstance(replay := document.get("replay"), dict) and "table" in replay:
        from search.replay.document import completed

        document = completed(document, str(path))
    return settings_from(document, str(path))


def load_replay(table: str, path: Path | None = None, overrides: Iterable[str] = ()) -> StudySettings:
    """Return the settings of a study that replays a table; without a study file, they are made from the table.

    Raises:
        TableUnreadable: there is no such table, or it is damaged. Otherwise as `load_settings`.
    """
    from search.replay.document import completed, document_of

    document = document_of(table) if path is None else read_document(path)
    for override in (*overrides, f"replay.table={json.dumps(table)}"):
        override_value(document, override)
    origin = f"the study of {table}" if path is None else str(path)
    return settings_from(completed(document, origin), origin)


def read_document(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return a study file's content, with the overrides.

    Raises:
        InvalidSettings: the file is missing or isn't TOML, or an override isn't written as one.
    """
    try:
        document = read_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        init = shlex.join(["condensery", "init", str(path)])
        raise InvalidSettings(f"no study file at {path}; write one with `{init}`.") from None
    except (OSError, UnicodeDecodeError, UnreadableDocument) as error:
        raise InvalidSettings(f"{path} can't be read: {error}.") from None
    for override in overrides:
        override_value(document, override)
    return document


def settings_from(document: dict[str, Any], origin: str) -> StudySettings:
    """Validate a study file's content and fill in every default.

    The images' shape and number of classes stay out of the space unless the content names them: they follow from the
    images (`search.data_fit`).
    """
    version = document.get("format")
    if version != FORMAT:
        raise StudyFileVersion(
            f"{origin} must say `format = {FORMAT}` (this version's study file), but says {version!r}; write a new one "
            "with `condensery init` and copy your settings over."
        )
    try:
        settings = StudySettings.model_validate(document)
    except ValidationError as error:
        raise InvalidSettings(f"{origin}: {_first_error(error)}") from None
    resolved_training = settings.training_space().to_settings()
    resolved_space = settings.search_space().to_settings()
    for key in {"input_shape", "num_classes"} - settings.space.keys():
        del resolved_space[key]
    return settings.model_copy(update={"training": resolved_training, "space": resolved_space})


def override_value(document: dict[str, Any], override: str) -> None:
    """Set one value in a study file's content, as `--set` names it.

    Raises:
        InvalidSettings: it isn't written as key.subkey=value, or names a key below a value.
    """
    key, sign, text = override.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise InvalidSettings(f"an override must be written key.subkey=value, but got {override!r}.")
    if len(parts) > DEEPEST:
        raise InvalidSettings(f"--set names a key of {len(parts)} parts; a setting has two or three.")
    try:
        value = read_toml(f"value = {text}")["value"]
    except UnreadableDocument as error:
        if not error.is_another_language:
            raise InvalidSettings(f"--set {key.strip()}: {error}.") from None
        value = text.strip()
    table = document
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InvalidSettings(f"--set {override}: {part} is a value, not a table.")
    table[parts[-1]] = value


def _first_error(error: ValidationError) -> str:
    """Return the first error in one sentence; for an unknown key, with the nearest valid one."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        valid = _keys_beside(first["loc"])
        return f"unknown key `{where}`. {did_you_mean(str(first['loc'][-1]), valid)}"
    if first["type"] == "missing":
        return f"`{where}` is missing."
    message = first["msg"].removeprefix("Value error, ")
    place = f"`{where}`: " if where else ""
    if first["type"] == "value_error" and isinstance(first["input"], Mapping):
        return f"{place}{message}."  # a rule between keys names its values itself
    if first["loc"] in SECRET:
        return f"{place}{message}."
    return f"{place}{message}, but got {_shortened(repr(first['input']))}."


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} …"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Return the valid keys of the section that a key is in; none if the section isn't one of the settings'."""
    model: type[Settings] = StudySettings
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Settings)):
            return []
        model = annotation
    return list(model.model_fields)
