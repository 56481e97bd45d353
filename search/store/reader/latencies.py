"""Latencies as recorded: of one trial, of a device, and of every config whose latency a device knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from search.store.tables import latency, latency_samples, reference_latency, trial
from search.store.vocabulary import LatencyPurpose
from space.config import CondenseNetConfig
from workers.latency.record import RECORD_FIELDS, REPLAYED, LatencyKind, LatencyRecord, Measurement


@dataclass(frozen=True)
class LatencySource:
    """Where comparable latencies come from: one device, with one runtime and number of threads, of one kind."""

    device: str
    runtime: str
    threads: int
    kind: LatencyKind


def read_latencies(engine: sa.Engine, trial_id: int) -> list[Measurement]:
    """Return every latency of a trial, oldest first, with its raw samples."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(latency).where(latency.c.trial_id == trial_id).order_by(latency.c.id)).all()
        samples = connection.execute(
            sa.select(latency_samples)
            .join(latency, latency.c.id == latency_samples.c.latency_id)
            .where(latency.c.trial_id == trial_id)
            .order_by(latency_samples.c.latency_id, latency_samples.c.process)
        ).all()
    by_latency: dict[int, list[tuple[float, ...]]] = {}
    cpu_ms: dict[int, list[tuple[float, ...]]] = {}
    strides: dict[int, int] = {}
    for row in samples:
        by_latency.setdefault(row.latency_id, []).append(tuple(json.loads(row.samples_ms)))
        strides[row.latency_id] = row.stride
        if row.cpu_ms is not None:
            cpu_ms.setdefault(row.latency_id, []).append(tuple(json.loads(row.cpu_ms)))
    return [
        Measurement(
            **{name: row._mapping[name] for name in RECORD_FIELDS},
            samples_ms=tuple(by_latency.get(row.id, ())),
            stride=strides.get(row.id, 1),
            conditions=json.loads(row.conditions),
            cpu_ms=tuple(cpu_ms.get(row.id, ())),
        )
        for row in rows
    ]


def read_prices(engine: sa.Engine, study_id: int, numbers: Sequence[int]) -> dict[int, dict[str, LatencyRecord]]:
    """Return the prices of some trials by number and device: the one that a trial is judged by, else the newest."""
    query = (
        sa.select(trial.c.number, latency.c.id, trial.c.latency_id, *(latency.c[name] for name in RECORD_FIELDS))
        .join(trial, trial.c.id == latency.c.trial_id)
        .where(trial.c.study_id == study_id, trial.c.number.in_(list(numbers)))
        .where(latency.c.purpose == LatencyPurpose.PRICE)
        .order_by(latency.c.id)
    )
    prices: dict[int, dict[str, LatencyRecord]] = {}
    judged: set[tuple[int, str]] = set()
    with engine.connect() as connection:
        for row in connection.execute(query):
            key = (row.number, row.target)
            if key not in judged:
                values = {name: row._mapping[name] for name in RECORD_FIELDS}
                prices.setdefault(row.number, {})[row.target] = LatencyRecord(**values)
            if row.id == row.latency_id:
                judged.add(key)
    return prices


def devices_measured(engine: sa.Engine, study_id: int, targets: Sequence[str]) -> set[str]:
    """Return the devices on which a study's trials were priced for its own `targets`; see `LatencyRecord`."""
    query = (
        sa.select(latency.c.device)
        .join(trial, trial.c.id == latency.c.trial_id)
        .where(trial.c.study_id == study_id, latency.c.purpose == LatencyPurpose.PRICE)
        .where(latency.c.target.in_(targets))
        .distinct()
    )
    with engine.connect() as connection:
        return set(connection.scalars(query))


def latencies_of_configs(
    engine: sa.Engine, source: LatencySource, least: int = 1, most: int | None = None
) -> list[tuple[CondenseNetConfig, float]]:
    """Return every config whose latency is known from a source, with its newest median in ms.

    From all studies of the database and from what was measured for a fit; only what can be compared: steady rows of
    the runtime version that the newest row of all has. Where these hold at least `least` configs measured with the
    standard policy, only those; else every policy's. Of more than `most` configs, so many, evenly over the time.
    """
    rows = _rows_of_configs(source)
    with engine.connect() as connection:
        recorded = connection.execute(sa.select(rows).order_by(rows.c.measured_at)).all()
    comparable = [row for row in recorded if row.steady and row.runtime_version == recorded[-1].runtime_version]
    standard = {row.config: row.median_ms for row in comparable if row.policy == "standard"}
    newest = standard if len(standard) >= least else {row.config: row.median_ms for row in comparable}
    chosen = list(newest.items())
    if most is not None and len(chosen) > most:
        chosen = [chosen[place * len(chosen) // most] for place in range(most)]
    return [(CondenseNetConfig.from_json(config), float(median_ms)) for config, median_ms in chosen]


def count_rows_of_configs(engine: sa.Engine, source: LatencySource) -> int:
    """Return how many rows `latencies_of_configs` looks at; it has no news while they are as many."""
    query = sa.select(sa.func.count()).select_from(_rows_of_configs(source))
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def _rows_of_configs(source: LatencySource) -> sa.Subquery:
    """The prices of trials and what was measured for a fit, but nothing that was replayed from a table."""
    selects = []
    of_trials = sa.and_(latency.c.purpose == LatencyPurpose.PRICE, trial.c.id == latency.c.trial_id)
    for config, table, joined in (
        (trial.c.config, latency, of_trials),
        (reference_latency.c.config, reference_latency, sa.true()),
    ):
        same = (table.c[name] == value for name, value in asdict(source).items())
        if "precision" in table.c:  # what is learned is of fp32
            joined = sa.and_(joined, table.c.precision == "fp32")
        columns = (table.c[name] for name in ("median_ms", "runtime_version", "policy", "steady", "measured_at"))
        selects.append(sa.select(config, *columns).where(joined, *same, table.c.policy != REPLAYED))
    return sa.union_all(*selects).subquery()
