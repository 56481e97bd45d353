"""Read a study as columns: three statements, however many trials there are, and no object for each trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from dashboards.data.columns import Latencies, LatencyGroup, StudyColumns
from dashboards.data.revision import load_revision
from dashboards.data.study_settings import devices_of
from dashboards.data.verifications import Verifications, read_verifications
from search.results.pareto import latency_key
from search.results.picking.verification import least_limit_ms, shown_of
from search.store.reader import find_study, read_points, read_shortlist
from search.store.rows import StudyRow
from search.store.tables import latency, trial
from search.store.vocabulary import STATES, LatencyPurpose
from space.config import short_text
from workers.latency.record import kind_words
from workers.metrics import METRICS

FLOATS = (  # NULL is NaN
    "top1 val_loss test_top1 train_seconds asked_at started_at finished_at duplicate_of continues".split()
)
FURTHER = tuple(name for name in METRICS if name != "top1")  # NULL is NaN, too
INTS = ("macs", "params", "attempt")
_OTHERS = ("number", "state", "reason", "config", "config_hash", "training")
_MEASURED = (
    "id target kind policy device runtime runtime_version threads median_ms interval_low_ms interval_high_ms p90_ms "
    "steady extrapolates precision peak_memory_mb"
).split()

ConfigFacts = tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, int, int, int]]  # text, stages, growth, G C B G3


class ConfigBook:
    """What the columns say of each config. Each JSON is parsed once, however often a study is read."""

    def __init__(self) -> None:
        self._facts: dict[str, ConfigFacts] = {}

    def facts(self, text: str) -> ConfigFacts:
        """Return a config's facts; a row that holds no valid config is described by its text."""
        facts = self._facts.get(text)
        if facts is None:
            facts = self._facts[text] = _facts(text)
        return facts


def _facts(text: str) -> ConfigFacts:
    """Return a config's facts, unchecked: the controller wrote a valid one, a check takes a hundred times longer."""
    try:
        values = json.loads(text)
        g3 = values["groups"] if values["groups_3x3"] is None else values["groups_3x3"]
        widths = (int(values["groups"]), int(values["condense_factor"]), int(values["bottleneck"]), int(g3))
        stages, growth = (tuple(int(value) for value in values[name]) for name in ("stages", "growth"))
        return short_text(values), stages, growth, widths
    except (ValueError, KeyError, TypeError, RecursionError):  # a damaged row
        return text[:200], (), (), (0, 0, 0, 0)


def read_columns(engine: sa.Engine, study_name: str, book: ConfigBook | None = None) -> StudyColumns:
    """Return a study as columns; a `book` that is kept saves time where a study is read again and again.

    Raises:
        StudyNotFound: there is none of this name.
    """
    study = find_study(engine, study_name)
    # The revision is read before the rows: after a change in between it is too old, which costs one reload too many.
    # Read after them it could hide that change.
    revision = load_revision(engine, study.id)
    with engine.connect() as connection:
        columns = columns_of(connection, study, revision, ConfigBook() if book is None else book)
    return replace(columns, points=tuple(read_points(engine, study.id)), shortlist=read_shortlist(engine, study.id))


def columns_of(connection: sa.Connection, study: StudyRow, revision: str, book: ConfigBook) -> StudyColumns:
    """Return a study's columns without points and shortlist; `book` holds the configs that were read before."""
    names = (*_OTHERS, *FLOATS, *FURTHER, *INTS)
    query = sa.select(trial.c.id, *(trial.c[name] for name in names), trial.c.latency_id)
    rows = connection.execute(query.where(trial.c.study_id == study.id).order_by(trial.c.number)).all()
    place = {row.id: index for index, row in enumerate(rows)}
    judged = {row.latency_id for row in rows}
    columns = dict(zip(("id", *names, "latency_id"), zip(*rows, strict=True), strict=True)) if rows else {}
    facts = [book.facts(text) for text in columns.get("config", ())]
    widths = np.array([fact[3] for fact in facts], dtype=np.int64).reshape(-1, 4)
    verifications = read_verifications(connection, study.id, place)
    latencies, groups = _latencies(connection, study, place, judged, verifications)
    trainings: dict[str, Mapping[str, Any]] = {}
    numbers: dict[str, Any] = {name: np.array(columns.get(name, ()), dtype=np.float64) for name in FLOATS}
    numbers |= {name: np.array(columns.get(name, ()), dtype=np.int64) for name in INTS}
    return StudyColumns(
        study=study,
        revision=revision,
        number=np.array(columns.get("number", ()), dtype=np.int64),
        state=np.array([STATES.index(state) for state in columns.get("state", ())], dtype=np.int8),
        **numbers,
        reason=tuple(columns.get("reason", ())),
        config_text=tuple(fact[0] for fact in facts),
        config_json=tuple(columns.get("config", ())),
        groups_1x1=widths[:, 0],
        condense_factor=widths[:, 1],
        bottleneck=widths[:, 2],
        groups_3x3=widths[:, 3],
        layers=np.array([sum(fact[1]) for fact in facts], dtype=np.int64),
        stages=_padded([fact[1] for fact in facts]),
        growth=_padded([fact[2] for fact in facts]),
        training=tuple(_training(text, trainings) for text in columns.get("training", ())),
        latencies=latencies,
        latency_groups=groups,
        verified={key: shown_of(history) for key, history in verifications.items()},
        metrics={name: np.array(columns.get(name, ()), dtype=np.float64) for name in FURTHER},
    )


def _training(text: str, trainings: dict[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if text not in trainings:
        trainings[text] = json.loads(text)
    return trainings[text]


def _padded(lists: Sequence[tuple[int, ...]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return lists of different lengths as an array (n, longest), NaN beyond the end of each."""
    padded = np.full((len(lists), max(map(len, lists), default=0)), np.nan)
    for row, values in zip(padded, lists, strict=True):
        row[: len(values)] = values
    return padded


def _latencies(
    connection: sa.Connection,
    study: StudyRow,
    place: Mapping[int, int],
    judged: set[int | None],
    verifications: Verifications,
) -> tuple[dict[str, Latencies], tuple[LatencyGroup, ...]]:
    """Return by device the latency each trial is judged by, and on every other device the newest price.

    Where `pick` has measured the trained file on the same device, its figures are shown instead.
    """
    query = (
        sa.select(latency.c.trial_id, *(latency.c[name] for name in _MEASURED))
        .join(trial, trial.c.id == latency.c.trial_id)
        .where(trial.c.study_id == study.id)
        .where(sa.or_(latency.c.purpose == LatencyPurpose.PRICE, latency.c.id == trial.c.latency_id))
        .order_by(latency.c.id)
    )
    newest: dict[tuple[str, int], Any] = {}
    for row in connection.execute(query):
        index = place.get(row.trial_id)
        if index is None:  # a trial that was asked since the trials were read
            continue
        earlier = newest.get((row.target, index))
        if earlier is None or earlier.id not in judged:
            newest[row.target, index] = row
    targets = devices_of(study.settings)
    targets += sorted({target for target, _ in newest} - set(targets))
    groups: dict[LatencyGroup, int] = {}
    filled = {target: _filled(target, len(place), newest, groups, verifications) for target in targets}
    return filled, tuple(groups)


def _filled(
    target: str,
    n: int,
    newest: Mapping[tuple[str, int], Any],
    groups: dict[LatencyGroup, int],
    verifications: Verifications,
) -> Latencies:
    group = np.full(n, -1, dtype=np.int16)
    priced = np.full((4, n), np.nan)  # median, low, high, p90
    memory_mb = np.full(n, np.nan)
    marks = np.zeros((5, n), dtype=bool)  # quick, steady, extrapolates, verified, int8
    for (device, index), row in newest.items():
        if device == target:
            group[index] = groups.setdefault(_group_of(row, target), len(groups))
            priced[:, index] = _figures(row)
            marks[:3, index] = row.policy == "quick", row.steady, row.extrapolates
            marks[4, index] = row.precision != "fp32"
            memory_mb[index] = np.nan if row.peak_memory_mb is None else row.peak_memory_mb
    held, shown = priced.copy(), priced.copy()
    for (index, device), history in verifications.items():
        if device != target or group[index] < 0:
            continue
        least_ms = [least_limit_ms(history, name) for name in ("median", "upper", "p90")]
        held[[0, 2, 3], index] = np.maximum(held[[0, 2, 3], index], least_ms)
        verified = shown_of(history)
        if groups.get(_group_of(verified, target)) == group[index]:  # charts don't mix groups
            shown[:, index] = _figures(verified)
            marks[:4, index] = verified.policy == "quick", verified.steady, verified.extrapolates, True
            marks[4, index] = verified.precision != "fp32"
            memory_mb[index] = np.nan if verified.peak_memory_mb is None else verified.peak_memory_mb
    return Latencies(
        target,
        group,
        *(shown[0], shown[1], shown[2]),
        *(marks[0], marks[1], marks[2]),
        p90_ms=shown[3],
        verified=marks[3],
        priced_ms=priced[0],
        held_ms={"upper": held[2], "median": held[0], "p90": held[3]},
        int8=marks[4],
        memory_mb=memory_mb,
    )


def _group_of(latency: Any, target: str) -> LatencyGroup:
    """Return the group of a latency, a row or a record."""
    _, device, runtime, threads = latency_key(latency)
    return LatencyGroup(target, kind_words(latency), device, runtime, threads)


def _figures(latency: Any) -> tuple[float, float, float, float]:
    """Return a latency's median, the ends of its interval and its 90th percentile, NaN where there is none."""
    p90_ms = np.nan if latency.p90_ms is None else latency.p90_ms
    return latency.median_ms, latency.interval_low_ms, latency.interval_high_ms, p90_ms
