"""The trials of a made-up study, one after another: what `benchmarks.dashboard_fill` writes.

Networks and costs are real; latencies follow macs, layers and grouping with noise, accuracies saturate with macs and
suffer from much condensing and a bad learning rate, curves dip where a condensing stage removes weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.trial import TrialState as OptunaState

from search.budget import excess, refusal
from search.samplers.optuna_samplers import distributions
from search.store.optuna_mirror import MirroredTrial, write_trials
from search.store.tables import artifact, attempt, curve, event, latency, trial
from search.store.vocabulary import OPEN_STATES, AttemptOutcome, StudyEvent, TrialOrigin, TrialState
from search.study import OpenStudy
from space.config import CondenseNetConfig
from space.cost import Cost, cost_of
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.latency.record import LatencyKind, LatencyRecord
from workers.training.job import trial_identity

HOST, PI = "host", "virtual:raspberry-pi-5"
LIMITS_MS = {HOST: 6.0, PI: 45.0}
# Candidates inside the budget end in these states with these chances, else they are done:
STATES = (TrialState.FAILED, TrialState.CANCELLED, TrialState.DUPLICATE, TrialState.PRUNED)
CHANCES = (0.03, 0.015, 0.04, 0.06)
TRAINED = (TrialState.DONE, TrialState.FAILED, TrialState.PRUNED, TrialState.RUNNING)
PRUNED = "at 50 % of its training it was less accurate than cheaper networks there"
BEGAN_AT = 1_770_000_000.0  # the first trial's time: fixed, so that a seed writes the same study whenever it is used
REASONS = (
    "the loss became nan by step 812 of 11250 (learning rate 0.42); try a smaller learning rate.",
    "the worker process was killed by SIGKILL three times without an epoch; is there enough memory?",
    "out of memory: 1.9 GiB wanted with a batch of 64; a smaller batch or a smaller network is needed.",
)


@dataclass
class Rows:
    """What is to be inserted, by table, and the trials for Optuna's tables."""

    tables: dict[sa.Table, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    mirrored: list[MirroredTrial] = field(default_factory=list)


@dataclass(frozen=True)
class _Candidate:
    """One candidate as priced: the network, its cost, and its latency on each device."""

    number: int
    key: int  # of its row
    config: CondenseNetConfig
    cost: Cost
    learning_rate: float
    prices: dict[str, LatencyRecord]  # by device; one that was foreseen to be over its limit has no other


class Maker:
    """Draws trials and writes them; the same generator in the same order draws the same study."""

    def __init__(self, study: OpenStudy, trials: int, rng: np.random.Generator, open_states: tuple[str, ...]) -> None:
        self.study, self.rng = study, rng
        self.space, self.trained = study.settings.search_space(), study.settings.training_space()
        self.named = distributions({**self.space.domains, **self.trained.domains})
        self.epochs = int(study.settings.training.get("epochs", 30))
        self.open_states = dict(zip(range(trials - len(open_states), trials), open_states, strict=True))
        self.done: list[int] = []  # numbers that a duplicate may repeat
        with study.engine.connect() as connection:
            self.key = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(trial.c.id), 0))) or 0
            self.price_key = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(latency.c.id), 0))) or 0
            last = connection.scalar(sa.select(sa.func.max(trial.c.asked_at)))
        self.now = BEGAN_AT if last is None else last

    def insert(self, connection: sa.Connection, numbers: range) -> None:
        """Draw and insert the trials of these numbers."""
        rows = Rows()
        for number in numbers:
            self._trial(number, rows)
        keys = write_trials(connection, self.study.optuna_study_id, rows.mirrored, self.named)
        for row in rows.tables[trial]:
            row["optuna_trial_id"] = keys.get(row["number"])
        for table, content in rows.tables.items():
            connection.execute(sa.insert(table), content)
        if connection.dialect.name == "postgresql":  # rows came with their keys: the next ones follow
            for name in ("condensery_trial", "condensery_latency"):
                connection.execute(sa.text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))

    def _trial(self, number: int, rows: Rows) -> None:
        self.key += 1
        self.now += float(self.rng.exponential(40.0))
        config = self.space.sample(self.rng)
        rate = float(np.exp(self.rng.uniform(np.log(0.01), np.log(0.5))))
        cost = cost_of(config)
        seen = _Candidate(number, self.key, config, cost, rate, self._prices(config, cost))
        state, reason, repeats = self._fate(seen)
        row = self._row(seen, state, reason) | {"duplicate_of": repeats}
        rows.tables[trial].append(row)
        if state != TrialState.ASKED:
            row["latency_id"] = self._add_prices(seen, rows)
        if state in TRAINED:
            self._add_training(seen, row, rows)
        if state == TrialState.DONE:
            self.done.append(number)
            folder = f"/none/{self.study.settings.study.name}/trials/{number}"
            rows.tables[artifact] += [
                {"trial_id": seen.key, "name": name, "path": f"{folder}/{name}", "sha256": "0" * 64, "removed": False}
                for name in (NETWORK_FILE, ONNX_FILE)
            ]
        if row["mirrored"]:
            rows.mirrored.append(self._mirrored(seen, row))

    def _prices(self, config: CondenseNetConfig, cost: Cost) -> dict[str, LatencyRecord]:
        """Make up both latencies from macs, layers and params; far over the host's limit, a prediction may do."""
        millions, layers = cost.macs / 1e6, sum(config.stages)
        grouping = 1.0 + 0.05 * np.log2(config.groups)  # indexed, grouped convolutions are slower than their macs say
        host_ms = (0.25 + 0.045 * millions**0.93 + 0.03 * layers) * grouping * np.exp(self.rng.normal(0, 0.07))
        pi_ms = (1.1 + 0.24 * millions + 0.11 * layers) * grouping**2 * np.exp(self.rng.normal(0, 0.12))
        if host_ms > 2.5 * LIMITS_MS[HOST] and self.rng.random() < 0.5:
            low, high = host_ms * 0.82, host_ms * 1.22
            return {HOST: _price(LatencyKind.PREDICTED, "model", HOST, (host_ms, None, low, high))}
        spread = 0.004 + 0.01 * self.rng.random()
        steady = bool(self.rng.random() > 0.03)
        interval = (host_ms * (1 - spread), host_ms * (1 + 1.4 * spread))
        host = _price(LatencyKind.MEASURED, "standard", HOST, (host_ms, host_ms * 1.06, *interval), steady=steady)
        pi = _price(
            LatencyKind.ESTIMATED, "counts", PI, (pi_ms, None, pi_ms * 0.86, pi_ms * 1.15), outside=millions > 600
        )
        return {HOST: host, PI: pi}

    def _fate(self, seen: _Candidate) -> tuple[TrialState, str | None, int | None]:
        """Return the trial's state, the reason for it and, of a duplicate, whom it repeats."""
        budget = self.study.settings.search_budget()
        first, *others = seen.prices.values()
        if (state := self.open_states.get(seen.number)) is not None:
            return state, None, None
        if (refused := refusal(budget, seen.cost.macs, seen.cost.params, first, others)) is not None:
            return TrialState.INFEASIBLE, refused, None
        drawn = float(self.rng.random())
        for state, edge in zip(STATES, np.cumsum(CHANCES), strict=True):
            if drawn < edge:
                if state == TrialState.DUPLICATE:
                    repeated = self.done[int(drawn * 1e6) % len(self.done)] if self.done else None
                    return (TrialState.DONE if repeated is None else state), None, repeated
                reasons = {TrialState.FAILED: str(self.rng.choice(REASONS)), TrialState.PRUNED: PRUNED}
                return state, reasons.get(state, "cancelled by request"), None
        return TrialState.DONE, None, None

    def _row(self, seen: _Candidate, state: TrialState, reason: str | None) -> dict[str, Any]:
        training = self.trained.from_params({"learning_rate": seen.learning_rate})
        trains, ended = state in TRAINED, state not in OPEN_STATES
        seconds = 20.0 + 4.0 * seen.cost.macs / 1e6
        started = self.now + 30.0
        done = state == TrialState.DONE
        top1 = self._top1(seen) if trains else None
        return {
            "id": seen.key,
            "study_id": self.study.store.study_id,
            "number": seen.number,
            "state": state,
            "origin": TrialOrigin.SAMPLED,
            "config": seen.config.to_json(),
            "config_hash": seen.config.digest,
            "training": json.dumps(training.model_dump(mode="json")),
            "seed": 0,
            "identity": trial_identity(seen.config, training, self.study.settings.data, 0),
            **{name: getattr(seen.cost, name) for name in ("macs", "params", "paper_flops")},
            "latency_id": None,
            "reason": reason,
            "attempt": int(trains),
            "cancel_requested": state == TrialState.CANCELLED,
            "asked_at": self.now,
            "started_at": started if trains else None,
            "finished_at": None if not ended else started + seconds if trains else started,
            "top1": top1 if done else None,
            "val_loss": 0.05 + 1.6 * (1 - top1) if done and top1 is not None else None,
            "train_seconds": seconds if done else None,
            "peak_memory_mb": 400.0 + seen.cost.params / 1e4 if done else None,
            "mirrored": ended,
        }

    def _top1(self, seen: _Candidate) -> float:
        """Make up an accuracy that saturates with macs, suffers from much condensing and from a bad learning rate."""
        size = np.log10(seen.cost.macs / 1e6)
        lost = 0.004 * np.log2(seen.config.groups) + 0.006 * np.log2(seen.config.condense_factor)
        far = np.log(seen.learning_rate / 0.1)
        top1 = 0.955 - 0.23 * np.exp(-0.95 * size) - lost - 0.006 * far**2 + float(self.rng.normal(0, 0.006))
        return round(float(np.clip(top1, 0.1, 0.999)) * 5000) / 5000  # of so many validation images

    def _add_prices(self, seen: _Candidate, rows: Rows) -> int:
        first = self.price_key + 1
        for row in seen.prices.values():
            self.price_key += 1
            rows.tables[latency].append(
                {
                    "id": self.price_key,
                    "trial_id": seen.key,
                    "conditions": "{}",
                    **dataclasses.asdict(row),
                    "model_hash": seen.config.digest,
                    "measured_at": self.now + 10.0,
                }
            )
        return first

    def _add_training(self, seen: _Candidate, row: dict[str, Any], rows: Rows) -> None:
        """Add attempt, curve and events; a failed trial's curve ends early, a running one's too."""
        state, last = row["state"], self.epochs
        if state != TrialState.DONE:
            last = int(self.rng.integers(1, max(2, self.epochs)))
        top1 = row["top1"] if row["top1"] is not None else self._top1(seen)
        seconds = (20.0 + 4.0 * seen.cost.macs / 1e6) / self.epochs
        began, ended = row["started_at"], row["finished_at"]
        lease = {"trial_id": seen.key, "attempt": 1, "owner": "desk:4711@1", "worker": f"desk:{5000 + seen.number % 8}"}
        times = {"started_at": began, "heartbeat_at": ended or began + seconds * last, "ended_at": ended}
        outcome = None if state == TrialState.RUNNING else AttemptOutcome(state)
        rows.tables[attempt].append(lease | times | {"epochs": last, "outcome": outcome, "reason": row["reason"]})
        rows.tables[curve] += self._curve(seen, top1, last, seconds)
        if state == TrialState.FAILED or self.rng.random() < 0.004:
            detail = row["reason"] if state == TrialState.FAILED else "its worker process was killed"
            about = {"study_id": row["study_id"], "number": seen.number, "attempt": 1}
            rows.tables[event].append({**about, "kind": StudyEvent.LOST, "detail": detail, "at": began + seconds})

    def _curve(self, seen: _Candidate, top1: float, last: int, seconds: float) -> list[dict[str, Any]]:
        """Return `last` epochs of a curve that ends at `top1`, with a dip where a condensing stage removes weights."""
        factor = seen.config.condense_factor
        progress = np.arange(1, self.epochs + 1) / self.epochs
        stages = np.minimum(factor - 1, (progress * 2 * max(1, factor - 1)).astype(int))  # condensed by half way
        dips = np.diff(stages, prepend=0) > 0
        rise = top1 * (1 - 0.75 * np.exp(-5.0 * progress)) - 0.05 * dips + self.rng.normal(0, 0.004, self.epochs)
        rise[-1] = top1
        condensed = stages >= factor - 1
        return [
            {
                "trial_id": seen.key,
                "epoch": i + 1,
                "progress": float(progress[i]),
                "train_loss": float(2.2 * np.exp(-3.0 * progress[i])),
                "val_loss": float(0.05 + 1.6 * (1 - rise[i])),
                "val_top1": float(np.clip(rise[i], 0.0, 1.0)),
                "learning_rate": float(seen.learning_rate * 0.5 * (1 + np.cos(np.pi * progress[i]))),
                "condensing_stage": int(stages[i]),
                "form": "deployed" if i + 1 == self.epochs else "condensed" if condensed[i] else "training",
                "seconds": seconds * (i + 1),
            }
            for i in range(last)
        ]

    def _mirrored(self, seen: _Candidate, row: dict[str, Any]) -> MirroredTrial:
        training = self.trained.from_params({"learning_rate": seen.learning_rate})
        params = {**self.space.to_params(seen.config), **self.trained.to_params(training)}
        params = {name: value for name, value in params.items() if name in self.named}
        first, *others = seen.prices.values()
        broken = excess(self.study.settings.search_budget(), row["macs"], row["params"], first, others)
        state = {
            TrialState.DONE: OptunaState.COMPLETE,
            TrialState.INFEASIBLE: OptunaState.PRUNED,
            TrialState.PRUNED: OptunaState.PRUNED,
        }.get(row["state"], OptunaState.FAIL)
        done = row["state"] == TrialState.DONE
        values = (
            [row["top1"], *(price.median_ms for price in seen.prices.values()), float(row["macs"])] if done else None
        )
        return MirroredTrial(seen.number, state, values, params, broken, row["asked_at"], row["finished_at"])


def _price(
    kind: LatencyKind,
    policy: str,
    target: str,
    ms: tuple[float, float | None, float, float],
    *,
    steady: bool = True,
    outside: bool = False,
) -> LatencyRecord:
    """Return a made-up latency; `ms` is its median, p90 and interval."""
    median_ms, p90_ms, low_ms, high_ms = ms
    host = target == HOST
    return LatencyRecord(
        kind=kind,
        policy=policy,
        device="host:made-up-cpu" if host else target,
        runtime="onnxruntime",
        runtime_version="" if kind == LatencyKind.PREDICTED else "1.23.0",
        threads=1,
        median_ms=median_ms,
        p90_ms=p90_ms,
        interval_low_ms=low_ms,
        interval_high_ms=high_ms,
        steady=steady,
        target=target,
        extrapolates=outside,
        cpu_model="made up",
        anchor_drift=0.01 if steady else 0.09,
    )
