"""What is wrong in the database: a damaged file, what a dead controller left open, jobs that no one waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import sqlalchemy as sa

from search.devices import transitions
from search.doctor.findings import Finding, StudyUnderCheck
from search.store import reader
from search.store.connection.transactions import shown
from search.store.device_tables import job, request
from search.store.rows import TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import AttemptOutcome, JobState, TrialState
from workers.wording import agreeing, counted


def _nothing() -> None:
    """Do nothing: claiming and releasing the study, as every repair does, already puts this right."""


def damage(engine: sa.Engine) -> Iterator[Finding]:
    """Find damage in the file of a SQLite database."""
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        lines = list(connection.exec_driver_sql("PRAGMA integrity_check").scalars())
    if lines != ["ok"]:
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        remedy = "restore it from a copy, or save what can be read: sqlite3 FILE .recover | sqlite3 NEW"
        yield Finding("integrity", f"SQLite finds its file damaged: {lines[0]}{more}", remedy)


def left_open(study: StudyUnderCheck, rows: Sequence[TrialRow]) -> Iterator[Finding]:
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


def unwanted_jobs(study: StudyUnderCheck) -> Iterator[Finding]:
    """Find jobs that no one waits for any more; in the whole database, since jobs belong to no study."""
    now = time.time()
    renewed = sa.func.abs(request.c.renewed_at - now) < transitions.REQUEST_S
    requested = sa.select(request.c.owner).where(request.c.job_id == job.c.id, renewed)
    query = sa.select(job.c.queue, sa.func.count()).where(job.c.state == JobState.WAITING, ~requested.exists())
    with study.engine.connect() as connection:
        queues = {row[0]: row[1] for row in connection.execute(query.group_by(job.c.queue))}
    for queue, jobs in queues.items():
        waiting = f"{counted(jobs, 'job')} {agreeing(jobs, 'waits', 'wait')}"
        text = f"{waiting} in queue {queue} that no one requests any more"
        yield Finding("device jobs", text, "given up", repair=partial(_sweep, study.store, queue))


def _sweep(store: StudyStore, queue: str) -> None:
    store.with_connection(lambda connection: transitions.sweep(connection, queue, transitions.LEASE_S, time.time()))
