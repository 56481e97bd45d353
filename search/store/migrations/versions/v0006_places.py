"""Places relative to the database's folder, and identities that don't depend on where an image folder is.

Paths were recorded as absolute ones, or as the user gave them. A file that is only where its absolute path says keeps
that path.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op

from search.store.places import as_recorded, files_root, study_folder
from space.config import CondenseNetConfig
from workers.settings import DataSettings, TrainingSettings
from workers.training.job import trial_identity

revision = "v0006"
down_revision = "v0005"

STUDIES = sa.text("SELECT id, name, settings FROM condensery_study")
TRIALS = sa.text("SELECT id, config, training, seed FROM condensery_trial WHERE study_id = :study")
FILES = sa.text(
    "SELECT a.trial_id, a.name, a.path FROM condensery_artifact a JOIN condensery_trial t ON t.id = a.trial_id "
    "WHERE t.study_id = :study ORDER BY t.number"
)


def upgrade() -> None:
    connection = op.get_bind()
    for study, name, text in connection.execute(STUDIES).all():
        settings = json.loads(text)
        if "study" not in settings:
            continue
        files = connection.execute(FILES, {"study": study}).all()
        settings["study"]["files"] = _root(settings, name, [Path(row.path) for row in files])
        recorded = as_recorded(settings, connection.engine.url)
        update = sa.text("UPDATE condensery_study SET settings = :settings WHERE id = :study")
        connection.execute(update, {"settings": json.dumps(recorded), "study": study})
        folder = study_folder(recorded, name, connection.engine.url)
        for row in files:
            _make_relative(Path(row.path), folder, row)
        if str((settings.get("data") or {}).get("dataset")).startswith("imagefolder:"):
            _identify_again(study, DataSettings.model_validate(settings["data"]))


def _root(settings: Mapping[str, Any], name: str, paths: list[Path]) -> str:
    """Return the folder above a study's: as it was set or followed from the database, or where its files are."""
    root = files_root(settings["study"].get("files"), op.get_bind().engine.url)
    last = paths[-1].parents if paths else ()
    if len(last) > 2 and last[1].name == name and not (root / name).is_dir() and last[1].is_dir():
        return str(last[2])
    return str(root)


def _make_relative(path: Path, folder: Path, row: Any) -> None:
    """Record a file's path in its study's folder, unless it is elsewhere and nowhere else."""
    tail = Path(*path.parts[-2:])
    if path.is_absolute() and (folder / tail == path or (folder / tail).exists() or not path.exists()):
        update = sa.text("UPDATE condensery_artifact SET path = :path WHERE trial_id = :trial AND name = :name")
        op.get_bind().execute(update, {"path": tail.as_posix(), "trial": row.trial_id, "name": row.name})


def _identify_again(study: int, data: DataSettings) -> None:
    connection = op.get_bind()
    update = sa.text("UPDATE condensery_trial SET identity = :identity WHERE id = :trial")
    for trial, config, training, seed in connection.execute(TRIALS, {"study": study}).all():
        settings = TrainingSettings.model_validate_json(training)
        identity = trial_identity(CondenseNetConfig.from_json(config), settings, data, seed)
        connection.execute(update, {"identity": identity, "trial": trial})
