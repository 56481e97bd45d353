"""Making and deleting a study's rows."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import sqlalchemy as sa

from search.store.places import as_recorded
from search.store.tables import (
    artifact,
    attempt,
    belief,
    curve,
    event,
    file_predictions,
    latency,
    latency_samples,
    note,
    point,
    predictions,
    proposal,
    request,
    study,
    trial,
)
from space.errors import StudyExists

LIBRARIES = "condensery torch torchvision optuna onnx onnxruntime sqlalchemy numpy fvcore".split()


def create_study(
    engine: sa.Engine, name: str, optuna_study_id: int, settings: Mapping[str, Any], hashes: tuple[str, str]
) -> int:
    """Insert a study in a transaction of its own; see `insert_study`.

    Raises:
        StudyExists: the name is taken.
    """
    try:
        with engine.begin() as connection:
            return insert_study(connection, name, optuna_study_id, settings, hashes)
    except sa.exc.IntegrityError:
        raise StudyExists(f"a study called {name!r} exists; go on with it by --resume.") from None


def insert_study(
    connection: sa.Connection, name: str, optuna_study_id: int, settings: Mapping[str, Any], hashes: tuple[str, str]
) -> int:
    """Insert a study with its resolved settings, (settings hash, frozen hash) and versions; return its id.

    Raises:
        sqlalchemy.exc.IntegrityError: the name is taken.
    """
    values = {
        "name": name,
        "optuna_study_id": optuna_study_id,
        "created_at": time.time(),
        "settings": json.dumps(as_recorded(settings, connection.engine.url)),
        "settings_hash": hashes[0],
        "frozen_hash": hashes[1],
        "versions": json.dumps(library_versions()),
        "stop_requested": False,
    }
    return new_id(connection.execute(sa.insert(study).values(values)))


def library_versions() -> dict[str, str]:
    """Return the versions of the main libraries, Python and the platform."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def delete_study(connection: sa.Connection, study_id: int) -> None:
    """Delete a study's rows (the Optuna side and the files are the caller's)."""
    trials = sa.select(trial.c.id).where(trial.c.study_id == study_id)
    latencies = sa.select(latency.c.id).where(latency.c.trial_id.in_(trials))
    connection.execute(sa.delete(latency_samples).where(latency_samples.c.latency_id.in_(latencies)))
    for table in (latency, curve, artifact, attempt, proposal, predictions, file_predictions, point, note):
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(trials)))
    for table in (request, event, belief):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    connection.execute(sa.delete(trial).where(trial.c.study_id == study_id))
    connection.execute(sa.delete(study).where(study.c.id == study_id))


def new_id(result: sa.CursorResult[Any]) -> int:
    """Return the key that the database gave an inserted row."""
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])
