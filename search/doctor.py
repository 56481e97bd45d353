"""Find what crashes, full disks and hand-edited files left wrong with a study, and repair what can be repaired.

Notable choices:
- Looking changes nothing. Each `Finding` brings its own repair, or says what only the user can do.
- Nothing recorded is ever removed: folders that no row knows are moved into `.orphans`, and only files that are
  temporary by their name are deleted. Figures, files or states that disagree between two places are reported.
- Repairs are made as the study's controller, so that no search begins meanwhile; each leaves an event `repaired`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState as OptunaState

from search.devices import transitions
from search.loop.files import folder_of_trial
from search.loop.mirror import OptunaMirror
from search.samplers.proposer import Proposer
from search.store import reader
from search.store.connection.transactions import shown
from search.store.device_tables import job, request
from search.store.rows import TrialRow
from search.store.store import StudyStore
from search.store.tables import artifact, curve, trial
from search.store.vocabulary import FINAL_STATES, AttemptOutcome, TrialState
from search.study import OpenStudy
from space.errors import StudyBusy
from workers.files import HALF_WRITTEN, file_hash
from workers.wording import agreeing, counted

ORPHANS = ".orphans"  # in a study's folder: what no row knows
_TRIAL_FOLDER = re.compile(r"trial-(\d{5,})")
_OPTUNA = models.TrialModel.__table__
_OPTUNA_VALUES = models.TrialValueModel.__table__


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    check: str  # which kind, in a word or two
    problem: str
    remedy: str  # what the repair does; without a repair, what the user can do
    trial: int | None = None
    repair: Callable[[], object] | None = None  # may be called again


@dataclass(frozen=True)
class StudyUnderCheck:
    """A study to look at, with its folder."""

    opened: OpenStudy
    files: Path

    @property
    def store(self) -> StudyStore:
        """The study's store."""
        return self.opened.store

    @property
    def engine(self) -> sa.Engine:
        """The study's database."""
        return self.opened.engine


def examine(study: StudyUnderCheck) -> list[Finding]:
    """Return what is wrong, changing nothing. What a live controller is working on is left out."""
    damaged = list(_integrity(study.engine))
    if damaged:
        return damaged  # nothing else that is read from such a file can be trusted
    rows, idle = study.store.trials(), not study.store.is_running()
    findings = [*_left_open(study, rows)] if idle else []
    findings += _optuna(study, rows, idle)
    findings += _artifacts(study.engine, rows)
    findings += _curves(study, rows)
    findings += _folders(study, rows) if idle else []
    findings += _unwanted_jobs(study)
    return findings


def repair(study: StudyUnderCheck, findings: Sequence[Finding]) -> None:
    """Make every repair that there is, each with its event in one transaction.

    Raises:
        StudyBusy: a controller runs the study.
    """
    store, repairs = study.store, [(finding, finding.repair) for finding in findings if finding.repair is not None]
    if not repairs:
        return
    store.claim()
    with store.kept():
        for finding, make in repairs:
            store.transact(partial(_repair, store, finding, make))


def _repair(store: StudyStore, finding: Finding, make: Callable[[], object]) -> None:
    make()
    store.note_event("repaired", f"{finding.problem}: {finding.remedy}", finding.trial)


def refuse_while_running(study: StudyUnderCheck) -> None:
    """Raise StudyBusy if a live controller runs the study: it must not be repaired meanwhile."""
    if study.store.is_running():
        raise StudyBusy("this study is being run; stop it first (`condensery stop`), or only look, with --dry-run.")


def _nothing() -> None:
    """Do nothing: claiming and releasing the study, as every repair does, already puts this right."""


# -- the database --


def _integrity(engine: sa.Engine) -> Iterator[Finding]:
    """Find damage in the file of a SQLite database."""
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        lines = list(connection.exec_driver_sql("PRAGMA integrity_check").scalars())
    if lines != ["ok"]:
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        remedy = "restore it from a copy, or save what can be read: sqlite3 FILE .recover | sqlite3 NEW"
        yield Finding("integrity", f"SQLite finds its file damaged: {lines[0]}{more}", remedy)


def _left_open(study: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    """Find what a controller that died left unfinished."""
    store, engine = study.store, study.engine
    stored = next(row for row in reader.list_studies(engine) if row.id == store.study_id)
    if stored.controller is not None:
        gone = f"the controller {shown(stored.controller)} ended without releasing the study"
        yield Finding("controller", gone, "released", repair=_nothing)
    if stored.stop_requested:
        yield Finding("stop request", "a request to stop is left over", "forgotten", repair=_nothing)
    for attempt in reader.read_attempts(engine, store.study_id, only_open=True):
        text = f"attempt {attempt.attempt} of trial {attempt.number} has no end, but no controller runs the study"
        ending = (attempt.number, attempt.attempt, AttemptOutcome.STOPPED, "its controller is gone")
        end = partial(store.end_attempt, *ending)
        yield Finding("open attempt", text, "ended as stopped", attempt.number, end)
    for row in rows:
        if row.state == TrialState.RUNNING:
            text = f"trial {row.number} is running, but no controller runs the study"
            back = partial(store.set_queued, row.number)
            yield Finding("running trial", text, "queued, to go on from its checkpoint", row.number, back)


def _unwanted_jobs(study: StudyUnderCheck) -> Iterator[Finding]:
    """Find what devices would measure for no one; in the whole database, since jobs belong to no study."""
    now = time.time()
    renewed = sa.func.abs(request.c.renewed_at - now) < transitions.REQUEST_S
    wanted = sa.select(request.c.owner).where(request.c.job_id == job.c.id, renewed)
    query = sa.select(job.c.queue, sa.func.count()).where(job.c.state == "waiting", ~wanted.exists())
    with study.engine.connect() as connection:
        queues = {row[0]: row[1] for row in connection.execute(query.group_by(job.c.queue))}
    for queue, jobs in queues.items():
        waiting = f"{counted(jobs, 'job')} {agreeing(jobs, 'waits', 'wait')}"
        text = f"{waiting} in queue {queue} that no one requests any more"
        yield Finding("device jobs", text, "given up", repair=partial(_sweep, study.store, queue))


def _sweep(store: StudyStore, queue: str) -> None:
    store.with_connection(lambda connection: transitions.sweep(connection, queue, transitions.LEASE_S, time.time()))


# -- Optuna's tables --


def _optuna(study: StudyUnderCheck, rows: Sequence[TrialRow], idle: bool) -> Iterator[Finding]:
    """Find trials that Optuna's tables hold otherwise than ours."""
    theirs, values = _optuna_trials(study)
    proposer, mirror = Proposer(study.opened.settings), OptunaMirror.of(study.opened)
    left_open = [number for number, row in theirs.items() if not row.state.is_finished()]
    if left_open and idle:
        text = f"Optuna's tables hold {_trials(left_open)} as open; ours hold none as open"
        yield Finding("Optuna, open", text, "dropped there", repair=mirror.drop_open_trials)
    final = {row.number: row for row in rows if row.state in FINAL_STATES}
    numbers = {row.number for row in rows}
    finished = {number: row for number, row in theirs.items() if row.state.is_finished()}
    missing = [row for number, row in final.items() if number not in finished or not row.mirrored]
    if missing and idle:
        text = f"Optuna's tables don't hold {_trials([row.number for row in missing])}, or ours don't know that they do"
        yield Finding("Optuna, missing", text, "written there", repair=partial(_mirror, study.opened, missing))
    for number, row in finished.items():
        if number not in final:
            never_recorded = row.state == OptunaState.FAIL and number not in numbers
            if idle and not never_recorded:
                text = f"Optuna's tables hold trial {number} as {row.state.name}, ours as no trial that has ended"
                yield Finding("Optuna, differs", text, _OURS, number)
            continue
        expected, state = proposer.outcome_for_optuna(final[number])
        if (row.state, values.get(number)) != (state, expected):
            text = (
                f"trial {number} is {state.name} {expected or ''} by our tables, but {row.state.name} "
                f"{values.get(number) or ''} in Optuna's"
            )
            yield Finding("Optuna, differs", " ".join(text.split()), _OURS, number)


_OURS = "the search goes by our tables, but Optuna's mislead their readers: find out what wrote there"


def _optuna_trials(study: StudyUnderCheck) -> tuple[dict[int, Any], dict[int, list[float]]]:
    """Return the study's rows in Optuna's table of trials, and their values, by number."""
    mine = _OPTUNA.c.study_id == study.opened.optuna_study_id
    with study.engine.connect() as connection:
        theirs = {row.number: row for row in connection.execute(sa.select(_OPTUNA).where(mine))}
        joined = sa.select(_OPTUNA.c.number, _OPTUNA_VALUES).join(_OPTUNA_VALUES).where(mine)
        values: dict[int, list[float]] = {}
        for row in connection.execute(joined.order_by(_OPTUNA_VALUES.c.objective)):
            value = models.TrialValueModel.stored_repr_to_value(row.value, row.value_type)
            values.setdefault(row.number, []).append(value)
    return theirs, values


def _mirror(study: OpenStudy, missing: Sequence[TrialRow]) -> None:
    mirror = OptunaMirror.of(study)
    for row in missing:
        mirror.add(row)
    mirror.write()


def _trials(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, sorted(numbers)[:10])) + (", …" if len(numbers) > 10 else "")
    return f"trial{'' if len(numbers) == 1 else 's'} {listed}"


# -- figures and files --


def _artifacts(engine: sa.Engine, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    """Find files of trained networks that are missing or changed."""
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
                yield Finding("file", text, _TRAIN_AGAIN, row.number)


_TRAIN_AGAIN = "put it back from a copy; until then `pick` and `export` can't hand this network out"


def _curves(study: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
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


_NO_CURVE = "it can't be made up; the trial's result doesn't rest on it"


def _folders(study: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
    """Find temporary files, and folders of trials that aren't recorded."""
    files = study.files
    if not files.is_dir():
        return
    with study.engine.connect() as connection:
        recorded = {Path(path).parent for path in connection.scalars(sa.select(artifact.c.path))}
    known = {folder_of_trial(files, row.number).name for row in rows}
    for path in sorted(files.iterdir()):
        if path.is_dir() and path.name.startswith("pricing-"):
            text = f"{path} is left over from a measurement"
            yield Finding("temporary", text, "removed", repair=partial(shutil.rmtree, path, ignore_errors=True))
        elif _TRIAL_FOLDER.fullmatch(path.name) and path.name not in known and path.absolute() not in recorded:
            orphans, problem = files / ORPHANS, f"{path} belongs to no recorded trial"
            yield Finding("folder", problem, f"moved into {orphans}", repair=partial(_set_aside, path, orphans))
    for path in sorted(files.rglob(".*")):
        if path.is_file() and HALF_WRITTEN.fullmatch(path.name) and ORPHANS not in path.relative_to(files).parts:
            text = f"{path} was never finished"
            yield Finding("temporary", text, "removed", repair=partial(path.unlink, missing_ok=True))


def _set_aside(path: Path, folder: Path) -> None:
    if not path.exists():  # the repair is made again
        return
    folder.mkdir(exist_ok=True)
    names = (path.name if copies == 0 else f"{path.name}-{copies}" for copies in count())
    path.rename(next(folder / name for name in names if not (folder / name).exists()))
