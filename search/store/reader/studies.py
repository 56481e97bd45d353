"""Studies as stored, by name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from search.store.places import as_read
from search.store.rows import StudyRow
from search.store.tables import study
from space.errors import StudyNotFound
from workers.metrics import OBJECTIVES, Objective

_DOCUMENTS = ("settings", "versions", "data_info")  # columns of JSON


def list_studies(engine: sa.Engine) -> list[StudyRow]:
    """Return every study, oldest first."""
    with engine.connect() as connection:
        return [_study_row(row, engine.url) for row in connection.execute(sa.select(study).order_by(study.c.id))]


def find_study(engine: sa.Engine, name: str) -> StudyRow:
    """Return the study of this name.

    Raises:
        StudyNotFound: there is none; the message suggests the nearest.
    """
    with engine.connect() as connection:
        row = connection.execute(sa.select(study).where(study.c.name == name)).first()
        if row is not None:
            return _study_row(row, engine.url)
        names = list(connection.scalars(sa.select(study.c.name)))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(map(repr, names[:10])) or 'none yet'}."
    raise StudyNotFound(f"no study is called {name[:100]!r}. {hint}")


def objective_of_study(connection: sa.Connection, study_id: int) -> Objective:
    """Return what a study maximises."""
    text = connection.scalar(sa.select(study.c.settings).where(study.c.id == study_id))
    return objective_of(json.loads(text or "{}"))


def objective_of(settings: Mapping[str, Any]) -> Objective:
    """Return what the study of these settings maximises; of a study from before there was a choice, top-1."""
    part = settings.get("study")
    named = part.get("objective") if isinstance(part, Mapping) else None
    return next((objective for objective in OBJECTIVES if objective == named), "top1")


def holds_study(connection: sa.Connection, name: str) -> bool:
    """Whether a database holds a study of ours of this name; it may lack our tables."""
    if not sa.inspect(connection).has_table(study.name):
        return False
    return connection.scalar(sa.select(study.c.id).where(study.c.name == name)) is not None


def _study_row(row: sa.Row[Any], url: sa.URL) -> StudyRow:
    values = dict(row._mapping)
    for name in _DOCUMENTS:
        values[name] = None if values[name] is None else json.loads(values[name])
    return StudyRow(**{**values, "settings": as_read(values["settings"], url)})
