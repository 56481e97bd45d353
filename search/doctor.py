"""What may be wrong with a study after crashes, full disks and hands in its files; and mending what can be mended.

Notable choices:
- Looking changes nothing. Each `Finding` brings its own repair, or says what only the user can do.
- Nothing that is recorded is ever removed: folders that no row knows are moved into `.orphans`, and only what is
  temporary by its name goes. A figure, a file or a state that two places tell differently is reported.
- Repairs are made as the study's controller, so that no search begins meanwhile; each leaves an event `repaired`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from search.devices import transitions
from search.loop.state import folder_of_trial
from search.samplers.proposer import Proposer
from search.store import reader
from search.store.device_tables import job, request
from search.store.rows import TrialRow
from search.store.store import StudyStore
from search.store.tables import artifact, curve, trial
from search.store.transactions import shown
from search.store.vocabulary import FINAL_STATES
from search.study import OpenStudy
from space.errors import StudyBusy
from workers.files import HALF_WRITTEN, file_hash

ORPHANS = ".orphans"  # in a study's folder: what no row knows
_TRIAL_FOLDER = re.compile(r"trial-(\d{5,})")
_OPTUNA = models.TrialModel.__table__
_OPTUNA_VALUES = models.TrialValueModel.__table__


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    check: str  # which kind, in a word or two
    found: str
    remedy: str  # what the repair does; without one what the user can do
    trial: int | None = None
    repair: Callable[[], object] | None = None  # repeatable


@dataclass(frozen=True)
class StudyUnderCheck:
    """A study to look at, with its folder."""

    study: OpenStudy
    files: Path

    @property
    def store(self) -> StudyStore:
        """The study's store."""
        return self.study.store


def examine(patient: StudyUnderCheck) -> list[Finding]:
    """Return what is wrong; changes nothing. While a controller runs the study, what it is at is not looked at."""
    damaged = list(_integrity(patient.study.engine))
    if damaged:
        return damaged  # whatever else is read of such a file means nothing
    rows, quiet = patient.store.trials(), not patient.store.is_run()
    findings = [*_left_open(patient, rows)] if quiet else []
    findings += _optuna(patient, rows, quiet)
    findings += _artifacts(patient.study.engine, rows)
    findings += _curves(patient, rows)
    findings += _folders(patient, rows, quiet)
    findings += _unwanted_jobs(patient)
    return findings


def mend(patient: StudyUnderCheck, findings: Sequence[Finding]) -> None:
    """Make every repair that there is, each with its event in one transaction.

    Raises:
        StudyBusy: a controller runs the study.
    """
    store, repairs = patient.store, [(one, one.repair) for one in findings if one.repair is not None]
    if not repairs:
        return
    store.claim()
    with store.kept():
        for finding, repair in repairs:
            store.transact(partial(_repair, store, finding, repair))


def _repair(store: StudyStore, finding: Finding, repair: Callable[[], object]) -> None:
    repair()
    store.note_event("repaired", f"{finding.found}: {finding.remedy}", finding.trial)


def refuse_while_run(patient: StudyUnderCheck) -> None:
    """Refuse to repair under a live controller.

    Raises:
        StudyBusy: there is one.
    """
    if patient.store.is_run():
        raise StudyBusy("this study is being run; stop it first (`condensery stop`), or only look, with --dry-run.")


def _nothing() -> None:
    """What claiming and releasing the study mends by itself."""


# -- the database --


def _integrity(engine: sa.Engine) -> Iterator[Finding]:
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        lines = list(connection.exec_driver_sql("PRAGMA integrity_check").scalars())
    if lines != ["ok"]:
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        remedy = "restore it from a copy, or save what can be read: sqlite3 FILE .recover | sqlite3 NEW"
        yield Finding("integrity", f"SQLite finds its file damaged: {lines[0]}{more}", remedy)


def _left_open(patient: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    """What a controller that died left as it was."""
    store, engine = patient.store, patient.study.engine
    found = next(one for one in reader.list_studies(engine) if one.id == store.study_id)
    if found.controller is not None:
        gone = f"the controller {shown(found.controller)} is gone without a word"
        yield Finding("controller", gone, "nobody runs the study", repair=_nothing)
    if found.stop_requested:
        yield Finding("stop request", "a request to stop is left over", "forgotten", repair=_nothing)
    for one in reader.read_attempts(engine, store.study_id, only_open=True):
        text = f"attempt {one.attempt} of trial {one.number} has no end, and nobody runs the study"
        end = partial(store.end_attempt, one.number, one.attempt, "stopped", "its controller is gone")
        yield Finding("open attempt", text, "ended as stopped", one.number, end)
    for row in rows:
        if row.state == "running":
            text = f"trial {row.number} is running, but nobody runs the study"
            back = partial(store.set_queued, row.number)
            yield Finding("running trial", text, "queued, to go on from its checkpoint", row.number, back)


def _unwanted_jobs(patient: StudyUnderCheck) -> Iterator[Finding]:
    """What devices would measure for nobody; of the whole database, since jobs belong to no study."""
    now = time.time()
    renewed = sa.func.abs(request.c.renewed_at - now) < transitions.REQUEST_S
    wanted = sa.select(request.c.owner).where(request.c.job_id == job.c.id, renewed)
    query = sa.select(job.c.queue, sa.func.count()).where(job.c.state == "waiting", ~wanted.exists())
    with patient.study.engine.connect() as connection:
        queues = {row[0]: row[1] for row in connection.execute(query.group_by(job.c.queue))}
    for queue, jobs in queues.items():
        text = f"{jobs} {'job waits' if jobs == 1 else 'jobs wait'} in queue {queue} that nobody requests any more"
        yield Finding("device jobs", text, "given up", repair=partial(_sweep, patient.store, queue))


def _sweep(store: StudyStore, queue: str) -> None:
    store.with_connection(lambda connection: transitions.sweep(connection, queue, transitions.LEASE_S, time.time()))


# -- Optuna's tables --


def _optuna(patient: StudyUnderCheck, rows: Sequence[TrialRow], quiet: bool) -> Iterator[Finding]:
    study = patient.study
    mine = _OPTUNA.c.study_id == study.optuna_study_id
    with study.engine.connect() as connection:
        theirs = {row.number: row for row in connection.execute(sa.select(_OPTUNA).where(mine))}
        joined = sa.select(_OPTUNA.c.number, _OPTUNA_VALUES).join(_OPTUNA_VALUES).where(mine)
        values: dict[int, list[float]] = {}
        for row in connection.execute(joined.order_by(_OPTUNA_VALUES.c.objective)):
            value = models.TrialValueModel.stored_repr_to_value(row.value, row.value_type)
            values.setdefault(row.number, []).append(value)
    proposer = Proposer(study)
    left_open = [number for number, row in theirs.items() if not row.state.is_finished()]
    if left_open and quiet:
        text = f"Optuna's tables hold {_trials(left_open)} as open; nothing of ours does"
        yield Finding("Optuna, open", text, "dropped there", repair=proposer.drop_open_trials)
    final = {row.number: row for row in rows if row.state in FINAL_STATES}
    numbers = {row.number for row in rows}
    known = {number: row for number, row in theirs.items() if row.state.is_finished()}
    missing = [row for number, row in final.items() if number not in known or not row.mirrored]
    if missing and quiet:
        text = f"Optuna's tables don't hold {_trials([row.number for row in missing])}, or we don't know that they do"
        yield Finding("Optuna, missing", text, "written there", repair=partial(_write, study, missing))
    for number, row in known.items():
        if number not in final:
            unknown = row.state == TrialState.FAIL and number not in numbers  # a number that was never recorded
            if quiet and not unknown:
                text = f"Optuna's tables hold trial {number} as {row.state.name}, ours as no trial that has ended"
                yield Finding("Optuna, differs", text, _OURS, number)
            continue
        expected, state = proposer.told(final[number])
        if (row.state, values.get(number)) != (state, expected):
            text = (
                f"trial {number} is {state.name} {expected or ''} by our tables, but {row.state.name} "
                f"{values.get(number) or ''} in Optuna's"
            )
            yield Finding("Optuna, differs", " ".join(text.split()), _OURS, number)


_OURS = "the search goes by our tables; whoever reads Optuna's is misled: find out who wrote there"


def _write(study: OpenStudy, missing: Sequence[TrialRow]) -> None:
    proposer = Proposer(study)
    proposer.replay([replace(row, mirrored=False) for row in missing])
    proposer.flush(now=True)


def _trials(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, sorted(numbers)[:10])) + (", …" if len(numbers) > 10 else "")
    return f"trial{'' if len(numbers) == 1 else 's'} {text}"


# -- figures and files --


def _artifacts(engine: sa.Engine, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    for row in rows:
        if row.state != "done":
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
                yield Finding("file", text, _TRAIN_AGAIN, row.number)


_TRAIN_AGAIN = "put it back from a copy; until then `pick` and `export` can't hand this network out"


def _curves(patient: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    query = sa.select(trial.c.number, curve.c.epoch).join(trial, trial.c.id == curve.c.trial_id)
    mine = query.where(trial.c.study_id == patient.store.study_id).order_by(trial.c.number, curve.c.epoch)
    epochs: dict[int, list[int]] = {}
    with patient.study.engine.connect() as connection:
        for number, epoch in connection.execute(mine):
            epochs.setdefault(number, []).append(epoch)
    for row in rows:
        seen = epochs.get(row.number, [])
        if not seen and row.state == "done":
            yield Finding("curve", f"trial {row.number} is done, but has no learning curve", _NO_CURVE, row.number)
        absent = set(range(1, max(seen, default=0) + 1)) - set(seen)
        if absent or min(seen, default=1) < 1:
            text = f"the learning curve of trial {row.number} has {len(seen)} epochs, the last is {max(seen)}"
            yield Finding("curve", text, _NO_CURVE, row.number)


_NO_CURVE = "it can't be made up; the trial's result doesn't rest on it"


def _folders(patient: StudyUnderCheck, rows: Sequence[TrialRow], quiet: bool) -> Iterator[Finding]:
    files = patient.files
    if not files.is_dir() or not quiet:
        return
    with patient.study.engine.connect() as connection:
        recorded = {Path(path).parent for path in connection.scalars(sa.select(artifact.c.path))}
    known = {folder_of_trial(files, row.number).name for row in rows}
    for path in sorted(files.iterdir()):
        if path.is_dir() and path.name.startswith("pricing-"):
            text = f"{path} is left over from a measurement"
            yield Finding("temporary", text, "removed", repair=partial(shutil.rmtree, path, ignore_errors=True))
        elif _TRIAL_FOLDER.fullmatch(path.name) and path.name not in known and path.absolute() not in recorded:
            to = files / ORPHANS
            yield Finding("folder", f"no trial knows {path}", f"moved into {to}", repair=partial(_set_aside, path, to))
    for path in sorted(files.rglob(".*")):
        if path.is_file() and HALF_WRITTEN.fullmatch(path.name) and ORPHANS not in path.relative_to(files).parts:
            text = f"{path} was never written to its end"
            yield Finding("temporary", text, "removed", repair=partial(path.unlink, missing_ok=True))


def _set_aside(path: Path, folder: Path) -> None:
    if not path.exists():  # a repair that is repeated
        return
    folder.mkdir(exist_ok=True)
    names = (path.name if again == 0 else f"{path.name}-{again}" for again in count())
    path.rename(next(folder / name for name in names if not (folder / name).exists()))
