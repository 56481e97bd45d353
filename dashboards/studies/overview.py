"""All studies of a database, each in a few figures: what `status` lists and the page opens on.

Counts and times of all studies come from three statements. The best network within a study's budget takes reading the
study as columns, so it is kept until the study has trained or measured something new, and a reader in a hurry gets the
studies without it first (`Summary.is_read`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from dashboards.budget.offers import Offer
from dashboards.budget.table import BudgetTable
from dashboards.data.column_reader import ConfigBook, columns_of
from dashboards.data.columns import StudyColumns
from dashboards.data.study_settings import budget_of, devices_of
from dashboards.studies.state import Activity, Step, StudyState, next_step, state_note, state_of, wanted_trainings
from search.store.connection.clock import now_of
from search.store.reader import list_studies
from search.store.rows import StudyRow
from search.store.tables import attempt, event, study, trial
from search.store.vocabulary import TrialState
from space.errors import CondenseryError

CHANGING = ("stop_requested", "controller", "controller_seen_at")  # columns that change while a study runs
ENDED = (TrialState.DONE, TrialState.PRUNED)
_NOTHING_YET = "No network is trained yet."


@dataclass(frozen=True)
class Best:
    """The best network within a study's own budget, as the study's page and `pick` choose it."""

    number: int
    score: float
    score_name: str
    latency_ms: float  # median on the study's first device; infinite where it isn't known
    latency: str  # in words, with interval and kind, on each device
    macs: int
    params: int


@dataclass(frozen=True)
class Summary:
    """One study of the list."""

    study: StudyRow
    state: StudyState
    state_note: str
    activity: Activity
    wanted: int | None  # trainings
    devices: tuple[str, ...]  # as measured; by their names in the study where nothing was measured yet
    best: Best | None
    why_none: str  # why there is no best; "" where there is one
    step: Step
    is_read: bool = True  # whether devices and best are known already


@dataclass(frozen=True)
class _Found:
    """What reading a study as columns gave."""

    devices: tuple[str, ...]
    best: Best | None
    why_none: str


class Overview:
    """The studies of a database, read again and again. Threads may share it."""

    def __init__(self, engine: sa.Engine, command_words: str = "") -> None:
        """Read from a database that is open for reading; `command_words` name it in commands."""
        self._engine, self._words = engine, command_words
        self._lock = threading.Lock()
        self._rows: tuple[Hashable, list[StudyRow]] = ((), [])  # with what they were read for
        self._found: dict[int, tuple[Hashable, _Found]] = {}  # by study, with what it was found for

    def read(self, within_s: float | None = None) -> list[Summary]:
        """Return all studies, the one with the newest activity first.

        Args:
            within_s: read studies as columns for so long, the newest first, and begin none after that; those that are
                left have `is_read` False, and a later call goes on with them. None: all are read.
        """
        with self._engine.connect() as connection:
            now, read, facts = now_of(connection), _read_changing(connection), _read_facts(connection)
        pairs = [(row, facts.get(row.id, _NO_FACTS)) for row in self._studies(read)]
        pairs.sort(key=lambda pair: -max(pair[1].activity.newest_at or 0.0, pair[0].created_at))
        with self._lock:
            self._found = {row.id: self._found[row.id] for row, _ in pairs if row.id in self._found}
        until = None if within_s is None else time.monotonic() + within_s
        with self._engine.connect() as connection:
            found = [self._found_for(connection, *pair, until) for pair in pairs]
        return [self._summary(*pair, *one, now) for pair, one in zip(pairs, found, strict=True)]

    def _studies(self, read: Sequence[sa.Row[Any]]) -> list[StudyRow]:
        """Return the studies as of now; their documents are read only when one has changed: it takes longest."""
        key = tuple(row[: -len(CHANGING)] for row in read)
        with self._lock:
            known, rows = self._rows
        if known != key:
            rows = list_studies(self._engine)
            with self._lock:
                self._rows = (key, rows)
        now = {row.id: {name: row._mapping[name] for name in CHANGING} for row in read}
        return [replace(row, **now[row.id]) for row in rows if row.id in now]

    def _summary(self, row: StudyRow, facts: _Facts, found: _Found, is_read: bool, now: float) -> Summary:
        state = state_of(row, facts.activity, now)
        best = None if found.best is None else found.best.number
        return Summary(
            study=row,
            state=state,
            state_note=state_note(row, state, facts.activity, now),
            activity=facts.activity,
            wanted=wanted_trainings(row),
            devices=found.devices,
            best=found.best,
            why_none=found.why_none,
            step=next_step(row, state, best, self._words, is_read),
            is_read=is_read,
        )

    def _found_for(
        self, connection: sa.Connection, row: StudyRow, facts: _Facts, until: float | None
    ) -> tuple[_Found, bool]:
        """Return a study's best network and whether that is as of now."""
        key = (row.settings_hash, row.data_info is None, facts.trained)
        with self._lock:
            known, found = self._found.get(row.id, (None, None))
        if found is not None and known == key:
            return found, True
        if until is not None and time.monotonic() >= until:
            return found or _Found(tuple(devices_of(row.settings)), None, ""), False
        try:
            found = _found_in(columns_of(connection, row, "", ConfigBook()))
        except (CondenseryError, ValueError, KeyError, TypeError) as error:  # someone edited its rows
            found = _Found(tuple(devices_of(row.settings)), None, f"It can't be read: {error}")
        with self._lock:
            self._found[row.id] = (key, found)
        return found, True


def read_state(engine: sa.Engine, row: StudyRow) -> tuple[StudyState, str]:
    """Return the state of one study, and what it means in a sentence."""
    with engine.connect() as connection:
        now, facts = now_of(connection), _read_facts(connection, row.id)
    activity = facts.get(row.id, _NO_FACTS).activity
    state = state_of(row, activity, now)
    return state, state_note(row, state, activity, now)


@dataclass(frozen=True)
class _Facts:
    activity: Activity
    trained: tuple[Any, ...]  # changes when a network is trained, tested or measured anew


def _read_changing(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
    """Return of each study what tells whether its documents have changed, and `CHANGING`."""
    columns = (study.c.id, study.c.name, study.c.settings_hash, study.c.data_info.is_(None))
    return connection.execute(sa.select(*columns, *(study.c[name] for name in CHANGING)).order_by(study.c.id)).all()


_NO_FACTS = _Facts(Activity(0, 0, None), ())


def _read_facts(connection: sa.Connection, only: int | None = None) -> dict[int, _Facts]:
    """Return the facts of all studies that have trials, or of `only` one, by the study's id."""
    moments = [sa.func.max(trial.c[name]) for name in ("asked_at", "started_at", "finished_at")]
    changes = [sa.func.count(trial.c.test_top1), sa.func.sum(trial.c.latency_id), sa.func.sum(trial.c.top1)]
    counts = [sa.func.count().label("number"), sa.func.count(trial.c.continues).label("continued")]
    query = sa.select(trial.c.study_id, trial.c.state, *counts, *moments, *changes)
    if only is not None:
        query = query.where(trial.c.study_id == only)
    newest = _newest_of_others(connection)
    trials: Counter[int] = Counter()
    trainings: Counter[int] = Counter()
    trained: dict[int, tuple[Any, ...]] = {}
    for row in connection.execute(query.group_by(trial.c.study_id, trial.c.state)):
        of, seen = row.study_id, [at for at in row[4:7] if at is not None]
        trials[of] += row.number
        newest[of] = max([newest.get(of, 0.0), *seen])
        if row.state in ENDED:
            trainings[of] += row.number - row.continued
        if row.state == TrialState.DONE:
            trained[of] = (row.number, *row[6:])
    return {
        of: _Facts(Activity(trials[of], trainings[of], newest[of]), trained.get(of, (trials[of],))) for of in trials
    }


def _newest_of_others(connection: sa.Connection) -> dict[int, float]:
    """Return by study when a worker last gave a sign of life, or something last went wrong."""
    heard = (
        sa.select(trial.c.study_id, sa.func.max(attempt.c.heartbeat_at))
        .join(trial, trial.c.id == attempt.c.trial_id)
        .where(attempt.c.outcome.is_(None))
        .group_by(trial.c.study_id)
    )
    happened = sa.select(event.c.study_id, sa.func.max(event.c.at)).group_by(event.c.study_id)
    newest: dict[int, float] = {}
    for query in (heard, happened):
        for study_id, at in connection.execute(query):
            newest[study_id] = max(at, newest.get(study_id, 0.0))
    return newest


def _found_in(columns: StudyColumns) -> _Found:
    table = BudgetTable.of(columns, budget_of(columns.study.settings))
    best = table.answer(table.limits_ms).best
    devices = tuple(_device_of(columns, target) for target in columns.latencies)
    if best is None:
        why = table.why_none or f"None of its {table.trained:,} trained networks is within its budget."
        return _Found(devices, None, why if len(columns) else _NOTHING_YET)
    return _Found(devices, _best_of(columns, table, table.offers[best]), "")


def _device_of(columns: StudyColumns, target: str) -> str:
    group = columns.fullest_group(target)
    return target if group is None else columns.latency_groups[group].device


def _best_of(columns: StudyColumns, table: BudgetTable, offer: Offer) -> Best:
    places = [place for place, control in enumerate(table.controls) if control.target == table.judged_by]
    return Best(
        number=offer.number,
        score=offer.score,
        score_name=columns.score_name,
        latency_ms=offer.median_ms[places[0]] if places else float("inf"),
        latency=offer.latency,
        macs=offer.macs,
        params=offer.params,
    )
