"""Writing a study: every step of a trial is one transaction, and repeating a step changes nothing.

One process at a time writes a study's trials (the controller, see `claim`); `pick` appends verifications, and any
process may leave wishes (stop, cancel, enqueue) that the controller reads.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from search.store import reader, tables
from search.store.tables import FINAL_STATES, artifact, curve, latency, latency_samples, request, study, trial
from space.config import CondenseNetConfig
from space.cost import Cost
from space.errors import StudyBusy, StudyExists

LEASE_S = 180.0  # a controller not seen for this long is taken for dead


@dataclass(frozen=True)
class NewTrial:
    """A proposal as it enters the database."""

    number: int
    optuna_trial_id: int
    origin: str
    config: CondenseNetConfig
    training: dict[str, Any]
    seed: int
    identity: str
    cost: Cost


@dataclass(frozen=True)
class Wish:
    """An enqueued config that no trial has taken yet."""

    id: int
    config: CondenseNetConfig
    training: dict[str, Any]


def create_study(
    engine: sa.Engine, name: str, optuna_study_id: int, settings: Mapping[str, Any], hashes: tuple[str, str]
) -> int:
    """Insert a study with its resolved settings, (settings hash, frozen hash) and versions; return its id.

    Raises:
        StudyExists: the name is taken.
    """
    values = {
        "name": name,
        "optuna_study_id": optuna_study_id,
        "created_at": time.time(),
        "settings": json.dumps(settings),
        "settings_hash": hashes[0],
        "frozen_hash": hashes[1],
        "versions": json.dumps(library_versions()),
        "stop_requested": False,
    }
    try:
        with engine.begin() as connection:
            return _new_id(connection.execute(sa.insert(study).values(values)))
    except sa.exc.IntegrityError:
        raise StudyExists(f"a study called {name!r} exists; go on with it by --resume.") from None


def library_versions() -> dict[str, str]:
    """Return the versions of the main libraries, Python and the platform."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in (
        "condensery",
        "torch",
        "torchvision",
        "optuna",
        "onnx",
        "onnxruntime",
        "sqlalchemy",
        "numpy",
        "fvcore",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def delete_study(engine: sa.Engine, study_id: int) -> None:
    """Delete a study's rows (the Optuna side and the files are the caller's)."""
    with engine.begin() as connection:
        ids = sa.select(trial.c.id).where(trial.c.study_id == study_id)
        measured = sa.select(latency.c.id).where(latency.c.trial_id.in_(ids))
        connection.execute(sa.delete(latency_samples).where(latency_samples.c.latency_id.in_(measured)))
        for table in (latency, curve, artifact):
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(ids)))
        connection.execute(sa.delete(request).where(request.c.study_id == study_id))
        connection.execute(sa.delete(trial).where(trial.c.study_id == study_id))
        connection.execute(sa.delete(study).where(study.c.id == study_id))


class StudyStore:
    """The write side of one study."""

    def __init__(self, engine: sa.Engine, study_id: int) -> None:
        self.engine, self.study_id = engine, study_id
        self.me = f"{socket.gethostname()}:{os.getpid()}{_begun(os.getpid())}"

    # -- the study --

    def claim(self) -> None:
        """Become the controller.

        Raises:
            StudyBusy: another live process is.
        """
        with self.engine.begin() as connection:
            owner = self._live_owner(connection)
            if owner is not None and owner != self.me:
                shown = owner.partition("@")[0]
                raise StudyBusy(f"this study is being run by {shown} (host:pid); wait for it, or `condensery stop` it.")
            self._set_study(connection, controller=self.me, controller_seen_at=time.time(), stop_requested=False)

    def heartbeat(self) -> bool:
        """Say that the controller lives; return whether someone asked the study to stop.

        Raises:
            StudyBusy: another process has taken the study over.
        """
        with self.engine.begin() as connection:
            query = sa.select(study.c.controller, study.c.stop_requested).where(study.c.id == self.study_id)
            row = connection.execute(query).one()
            if row.controller != self.me:
                raise StudyBusy(f"this study was taken over by {row.controller or 'nobody'}; this process ends here.")
            self._set_study(connection, controller_seen_at=time.time())
            return bool(row.stop_requested)

    def release(self) -> None:
        """Stop being the controller."""
        with self.engine.begin() as connection:
            mine = (study.c.id == self.study_id) & (study.c.controller == self.me)
            connection.execute(sa.update(study).where(mine).values(_NOBODY))

    def request_stop(self) -> str | None:
        """Ask the running controller to stop cleanly; return who that is, None when nobody runs the study."""
        with self.engine.begin() as connection:
            owner = self._live_owner(connection)
            if owner is not None:
                self._set_study(connection, stop_requested=True)
        return owner

    def is_run(self) -> bool:
        """Whether a live process is this study's controller."""
        with self.engine.connect() as connection:
            return self._live_owner(connection) is not None

    def _live_owner(self, connection: sa.Connection) -> str | None:
        query = sa.select(study.c.controller, study.c.controller_seen_at).where(study.c.id == self.study_id)
        row = connection.execute(query).one()
        return row.controller if row.controller and _alive(row.controller, row.controller_seen_at) else None

    def update_settings(self, settings: Mapping[str, Any], settings_hash: str) -> None:
        """Store the settings of a resumed study (only what is not frozen may differ)."""
        with self.engine.begin() as connection:
            self._set_study(connection, settings=json.dumps(settings), settings_hash=settings_hash)

    def set_data_info(self, info: Mapping[str, Any]) -> None:
        """Store what the images turned out to be."""
        with self.engine.begin() as connection:
            self._set_study(connection, data_info=json.dumps(info))

    def _set_study(self, connection: sa.Connection, **values: Any) -> None:
        connection.execute(sa.update(study).where(study.c.id == self.study_id).values(values))

    # -- trials --

    def add_trial(self, new: NewTrial, wish: Wish | None = None) -> int:
        """Insert a proposal in state `asked`; return its row id. A wish it answers is marked in one transaction."""
        values = {
            "study_id": self.study_id,
            "number": new.number,
            "optuna_trial_id": new.optuna_trial_id,
            "state": "asked",
            "origin": new.origin,
            "config": new.config.to_json(),
            "config_hash": new.config.digest,
            "training": json.dumps(new.training),
            "seed": new.seed,
            "identity": new.identity,
            "macs": new.cost.macs,
            "params": new.cost.params,
            "paper_flops": new.cost.paper_flops,
            "attempt": 0,
            "cancel_requested": False,
            "told": False,
            "asked_at": time.time(),
        }
        with self.engine.begin() as connection:
            key = _new_id(connection.execute(sa.insert(trial).values(values)))
            if wish is not None:
                taken = sa.update(request).where(request.c.id == wish.id).values(trial_number=new.number)
                connection.execute(taken)
        return key

    def next_number(self) -> int:
        """Return the number after the largest known one: what the next proposal's seed is derived from."""
        with self.engine.connect() as connection:
            query = sa.select(sa.func.max(trial.c.number)).where(trial.c.study_id == self.study_id)
            last = connection.scalar(query)
        return 0 if last is None else int(last) + 1

    def find_same(self, identity: str, before: int) -> int | None:
        """Return the number of the first trial with this identity asked before number `before`, if there is one.

        A failed or cancelled one doesn't count: its config may be tried again.
        """
        query = (
            sa.select(sa.func.min(trial.c.number))
            .where(trial.c.study_id == self.study_id, trial.c.identity == identity, trial.c.number < before)
            .where(trial.c.state.not_in(("failed", "cancelled", "duplicate")))
        )
        with self.engine.connect() as connection:
            found = connection.scalar(query)
        return None if found is None else int(found)

    def set_queued(self, number: int) -> None:
        """Record that a priced trial waits for a worker (again)."""
        self._set_trial(number, state="queued")

    def set_running(self, number: int) -> int:
        """Record that a worker starts on a trial; return the number of this attempt."""
        with self.engine.begin() as connection:
            row = self._where(number)
            attempt = int(connection.scalar(sa.select(trial.c.attempt).where(row)) or 0) + 1
            values = {"state": "running", "attempt": attempt}
            connection.execute(sa.update(trial).where(row).values(values))
            first = sa.update(trial).where(row, trial.c.started_at.is_(None)).values(started_at=time.time())
            connection.execute(first)
        return attempt

    def add_curve_row(self, number: int, row: Mapping[str, Any]) -> None:
        """Insert or replace one epoch: a resumed trial repeats those since its checkpoint."""
        with self.engine.begin() as connection:
            key = connection.scalar(sa.select(trial.c.id).where(self._where(number)))
            same = (curve.c.trial_id == key) & (curve.c.epoch == row["epoch"])
            connection.execute(sa.delete(curve).where(same))
            connection.execute(sa.insert(curve).values(trial_id=key, **row))

    def add_latency(
        self, number: int, measurement: Any, purpose: str, target: str = "host", judged: bool = True
    ) -> None:
        """Append a `workers.latency.measurement.Measurement` on the device that the study calls `target`.

        A price becomes what the trial is judged by, unless `judged` is false: one on a further device.
        """
        values = {
            "purpose": purpose,
            "target": target,
            **latency_values(measurement),
            **{name: getattr(measurement, name) for name in _OF_TRIALS_ONLY},
            "p90_ms": measurement.summary.p90_ms,
        }
        with self.engine.begin() as connection:
            key = connection.scalar(sa.select(trial.c.id).where(self._where(number)))
            added = _new_id(connection.execute(sa.insert(latency).values(trial_id=key, **values)))
            rows = [
                {"latency_id": added, "process": i, "stride": measurement.stride, "samples_ms": _json_ms(samples)}
                for i, samples in enumerate(measurement.samples_ms)
            ]
            if rows:  # estimates and predictions have no samples
                connection.execute(sa.insert(latency_samples), rows)
            if purpose == "price" and judged:
                connection.execute(sa.update(trial).where(self._where(number)).values(latency_id=added))

    def finish(self, number: int, state: str, **values: Any) -> None:
        """Put a trial into a final state with its outcome. What is final stays: a second outcome changes nothing."""
        assert state in FINAL_STATES, state
        with self.engine.begin() as connection:
            still_open = self._where(number) & trial.c.state.not_in(FINAL_STATES)
            outcome = {"state": state, "finished_at": time.time(), **values}
            connection.execute(sa.update(trial).where(still_open).values(outcome))

    def add_artifacts(self, number: int, files: Mapping[str, tuple[str, str]]) -> None:
        """Record files by name as (path, sha256), replacing those of an earlier attempt."""
        with self.engine.begin() as connection:
            key = connection.scalar(sa.select(trial.c.id).where(self._where(number)))
            connection.execute(sa.delete(artifact).where(artifact.c.trial_id == key, artifact.c.name.in_(files)))
            rows = [
                {"trial_id": key, "name": name, "path": path, "sha256": sha256, "removed": False}
                for name, (path, sha256) in files.items()
            ]
            connection.execute(sa.insert(artifact), rows)

    def mark_removed(self, number: int) -> None:
        """Record that a retention rule removed a trial's files."""
        with self.engine.begin() as connection:
            key = connection.scalar(sa.select(trial.c.id).where(self._where(number)))
            connection.execute(sa.update(artifact).where(artifact.c.trial_id == key).values(removed=True))

    def mark_told(self, number: int) -> None:
        """Record that Optuna has the outcome."""
        self._set_trial(number, told=True)

    def set_test_top1(self, number: int, top1: float) -> None:
        """Record the accuracy on the test split; the first figure stays."""
        with self.engine.begin() as connection:
            unset = self._where(number) & trial.c.test_top1.is_(None)
            connection.execute(sa.update(trial).where(unset).values(test_top1=top1))

    # -- wishes --

    def enqueue(self, config: CondenseNetConfig, training: Mapping[str, Any]) -> None:
        """Leave a config for the controller to try next."""
        values = {
            "study_id": self.study_id,
            "config": config.to_json(),
            "training": json.dumps(training),
            "created_at": time.time(),
        }
        with self.engine.begin() as connection:
            connection.execute(sa.insert(request).values(values))

    def waiting_wishes(self) -> list[Wish]:
        """Return enqueued configs that no trial has taken, oldest first."""
        query = (
            sa.select(request.c.id, request.c.config, request.c.training)
            .where(request.c.study_id == self.study_id, request.c.trial_number.is_(None))
            .order_by(request.c.id)
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Wish(row.id, CondenseNetConfig.from_json(row.config), json.loads(row.training)) for row in rows]

    def request_cancel(self, number: int) -> None:
        """Ask for one trial to be cancelled."""
        self._set_trial(number, cancel_requested=True)

    def cancel_wishes(self) -> list[int]:
        """Return the numbers of open trials that someone wants cancelled."""
        query = sa.select(trial.c.number).where(
            trial.c.study_id == self.study_id,
            trial.c.cancel_requested.is_(True),
            trial.c.state.in_(tables.OPEN_STATES),
        )
        with self.engine.connect() as connection:
            return list(connection.scalars(query))

    def _where(self, number: int) -> sa.ColumnElement[bool]:
        return (trial.c.study_id == self.study_id) & (trial.c.number == number)

    def _set_trial(self, number: int, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.update(trial).where(self._where(number)).values(values))

    def trials(self, states: tuple[str, ...] | None = None) -> list[reader.TrialRow]:
        """Return this study's trials (see `reader.read_trials`)."""
        return reader.read_trials(self.engine, self.study_id, states=states)

    def trial(self, number: int) -> reader.TrialRow:
        """Return one trial that is known to exist."""
        return reader.read_trials(self.engine, self.study_id, number)[0]


_SHARED = "device runtime runtime_version threads kind policy steady".split()
_OF_TRIALS_ONLY = "model_hash cpu_model precision anchor_drift extrapolates".split()


def latency_values(measurement: Any) -> dict[str, Any]:
    """Return the columns that a `workers.latency.measurement.Measurement` fills in both tables of latencies."""
    return {
        **{name: getattr(measurement, name) for name in _SHARED},
        **{name: getattr(measurement.summary, name) for name in ("median_ms", "interval_low_ms", "interval_high_ms")},
        "conditions": json.dumps(measurement.conditions),
        "measured_at": time.time(),
    }


def _new_id(result: sa.CursorResult[Any]) -> int:
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def _json_ms(samples: tuple[float, ...]) -> str:
    return json.dumps([round(sample, 6) for sample in samples])  # nanoseconds


_NOBODY = {"controller": None, "controller_seen_at": None, "stop_requested": False}


def _begun(pid: int) -> str:
    """Return "@" and the process's start in clock ticks since boot, so that a pid used again is another; else ""."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return "@" + stat.rpartition(")")[2].split()[19]  # proc(5): field 22


def _alive(owner: str, seen_at: float | None) -> bool:
    """Whether host:pid@start is a live process: asked of this host, believed of another while its lease lasts."""
    host, _, process = owner.rpartition(":")
    pid, at, begun = process.partition("@")
    if host == socket.gethostname():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return not at or _begun(int(pid)) in ("", f"@{begun}")
    return seen_at is not None and time.time() - seen_at < LEASE_S
