"""Files and figures of trials that are missing, changed or incomplete, and files that no row knows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import sqlalchemy as sa

from search.doctor.findings import Finding, StudyUnderCheck
from search.store import reader
from search.store.rows import TrialRow
from search.store.tables import artifact, curve, trial
from search.store.vocabulary import EvaluatedSplit, TrialState
from search.study_folders import refuse_absent
from space.errors import CheckpointCorrupt, StudyDamaged
from workers.file_names import trial_folder
from workers.files import HALF_WRITTEN, file_hash
from workers.wording import counted

ORPHANS = ".orphans"  # subfolder of a study's folder, for folders that belong to no recorded trial
_TRIAL_FOLDER = re.compile(r"trial-(\d{5,})")
_TRAIN_AGAIN = "put it back from a copy; until then `pick` and `export` can't use this network"
_CHANGED = "replace it by a copy with the SHA-256 that is recorded; until then this network can't be used"
_NO_PREDICTIONS = "restore the database from a backup; until then its classes can't be told"
_NO_CURVE = "it can't be restored; the trial's result doesn't depend on it"


def damaged_files(study: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    """Find files of trained networks that are missing or changed, or that the whole folder is elsewhere."""
    engine = study.engine
    try:
        refuse_absent(study.files)
    except CheckpointCorrupt as error:
        if any(row.state == TrialState.DONE for row in rows):
            yield Finding(
                "file", str(error).rstrip("."), "until then `pick` and `export` can't use any of its networks"
            )
        return
    for row in rows:
        if row.state != TrialState.DONE:
            continue
        recorded = reader.read_artifacts(engine, row.id)
        if not recorded:
            text = f"trial {row.number} is done, but no file of it is recorded"
            yield Finding("file", text, _TRAIN_AGAIN, row.number)
        for entry in recorded.values():
            path = Path(entry["path"])
            if entry["removed"]:
                continue
            if not path.is_file():
                yield Finding("file", f"{path} of trial {row.number} is missing", _TRAIN_AGAIN, row.number)
            elif file_hash(path) != entry["sha256"]:
                text = f"{path} of trial {row.number} is not the file that was recorded (its SHA-256 differs)"
                yield Finding("file", text, _CHANGED, row.number)


def damaged_predictions(study: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    """Find predictions that can't be read, or that don't give the top-1 which is recorded beside them."""
    for row in rows:
        for split, top1 in ((EvaluatedSplit.VALIDATION, row.top1), (EvaluatedSplit.TEST, row.test_top1)):
            try:
                said = reader.class_predictions_of(study.engine, row, split)
            except StudyDamaged:
                text = f"the {split} predictions of trial {row.number} are damaged"
            else:
                if said is None or said.metrics()["top1"] == top1:
                    continue
                text = f"the {split} predictions of trial {row.number} don't give its top-1"
            yield Finding("predictions", text, _NO_PREDICTIONS, row.number)


def broken_curves(study: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    """Find learning curves with gaps, and trials that are done without any."""
    query = sa.select(trial.c.number, curve.c.epoch).join(trial, trial.c.id == curve.c.trial_id)
    mine = query.where(trial.c.study_id == study.store.study_id).order_by(trial.c.number, curve.c.epoch)
    epochs: dict[int, list[int]] = {}
    with study.engine.connect() as connection:
        for number, epoch in connection.execute(mine):
            epochs.setdefault(number, []).append(epoch)
    for row in rows:
        seen = epochs.get(row.number, [])
        if not seen and row.state == TrialState.DONE:
            yield Finding("curve", f"trial {row.number} is done, but has no learning curve", _NO_CURVE, row.number)
        absent = set(range(1, max(seen, default=0) + 1)) - set(seen)
        if absent or min(seen, default=1) < 1:
            text = (
                f"the learning curve of trial {row.number} has {counted(len(seen), 'epoch')}, the last is {max(seen)}"
            )
            yield Finding("curve", text, _NO_CURVE, row.number)


def stray_files(study: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    """Find temporary files, and folders of trials that aren't recorded."""
    files = study.files
    if not files.is_dir():
        return
    with study.engine.connect() as connection:
        recorded = {(files / path).parent for path in connection.scalars(sa.select(artifact.c.path))}
    names = {trial_folder(row.number) for row in rows}
    for path in sorted(files.iterdir()):
        if path.is_dir() and path.name.startswith("pricing-"):
            text = f"{path} is left over from a measurement"
            yield Finding("temporary", text, "removed", repair=partial(shutil.rmtree, path, ignore_errors=True))
        elif _TRIAL_FOLDER.fullmatch(path.name) and path.name not in names and path.absolute() not in recorded:
            orphans, problem = files / ORPHANS, f"{path} belongs to no recorded trial"
            yield Finding("folder", problem, f"moved into {orphans}", repair=partial(_set_aside, path, orphans))
    for path in sorted(files.rglob(".*")):
        if path.is_file() and HALF_WRITTEN.fullmatch(path.name) and ORPHANS not in path.relative_to(files).parts:
            text = f"{path} was never finished"
            yield Finding("temporary", text, "removed", repair=partial(path.unlink, missing_ok=True))


def _set_aside(path: Path, folder: Path) -> None:
    if not path.exists():  # an earlier call of this repair has moved it
        return
    folder.mkdir(exist_ok=True)
    names = (path.name if copies == 0 else f"{path.name}-{copies}" for copies in count())
    path.rename(next(folder / name for name in names if not (folder / name).exists()))
