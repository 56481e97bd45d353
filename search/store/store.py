"""Writing a study: every step of a trial is one transaction, and repeating a step changes nothing.

One process at a time writes a study's trials (the controller, see `claim`); `pick` appends verifications, and any
process may leave wishes (stop, cancel, enqueue) that the controller reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from search.store import reader
from search.store.attempts import Attempts
from search.store.controller_lease import ControllerLease
from search.store.tables import artifact, attempt, curve, event, latency, latency_samples, request, study, trial
from search.store.vocabulary import FINAL_STATES, OPEN_STATES
from space.config import CondenseNetConfig
from space.cost import Cost
from space.errors import StudyExists

if TYPE_CHECKING:
    from workers.latency.measurement import Measurement


@dataclass(frozen=True)
class NewTrial:
    """A proposal as it enters the database."""

    number: int
    origin: str
    config: CondenseNetConfig
    training: dict[str, Any]
    seed: int
    identity: str
    cost: Cost


@dataclass(frozen=True)
class EnqueuedConfig:
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
        for table in (latency, curve, artifact, attempt):
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(ids)))
        for table in (request, event):
            connection.execute(sa.delete(table).where(table.c.study_id == study_id))
        connection.execute(sa.delete(trial).where(trial.c.study_id == study_id))
        connection.execute(sa.delete(study).where(study.c.id == study_id))


# Built once; see `transactions`. Updates change the columns that the parameters name.
_NEW_TRIAL, _NEW_LATENCY, _NEW_SAMPLES, _NEW_ARTIFACT = map(sa.insert, (trial, latency, latency_samples, artifact))
_CHANGE = sa.update(trial).where(trial.c.id == sa.bindparam("key"))
_FINISH = _CHANGE.where(trial.c.state.not_in(FINAL_STATES))
_SAME_LATENCY = sa.select(latency.c.id).where(
    latency.c.trial_id == sa.bindparam("key"),
    latency.c.target == sa.bindparam("on"),
    latency.c.measured_at == sa.bindparam("at"),
)
_FORGET_ARTIFACTS = sa.delete(artifact).where(
    artifact.c.trial_id == sa.bindparam("key"), artifact.c.name.in_(sa.bindparam("names", expanding=True))
)


class StudyStore(ControllerLease, Attempts):
    """The write side of one study."""

    def update_settings(self, settings: Mapping[str, Any], settings_hash: str) -> None:
        """Store the settings of a resumed study (only what is not frozen may differ)."""
        with self._begin() as connection:
            self._set_study(connection, settings=json.dumps(settings), settings_hash=settings_hash)

    def set_data_info(self, info: Mapping[str, Any]) -> None:
        """Store what the images turned out to be."""
        with self._begin() as connection:
            self._set_study(connection, data_info=json.dumps(info))

    # -- trials --

    def add_trial(self, new: NewTrial, wish: EnqueuedConfig | None = None, at: float | None = None) -> int:
        """Insert a proposal in state `asked`; return its row id. A wish it answers is marked in one transaction.

        `at` is when it was asked, UTC seconds; None = now.
        """
        values = {
            "study_id": self.study_id,
            "number": new.number,
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
            "asked_at": time.time() if at is None else at,
        }
        with self._begin() as connection:
            self._keys.pop(new.number, None)  # of a transaction that was rolled back
            known = self._key(connection, new.number)
            if known is not None:  # a commit whose answer was lost
                return known
            key = _new_id(connection.execute(_NEW_TRIAL, values))
            if wish is not None:
                taken = sa.update(request).where(request.c.id == wish.id).values(trial_number=new.number)
                connection.execute(taken)
        return key

    def set_queued(self, number: int) -> None:
        """Record that a priced trial waits for a worker (again)."""
        self._set_trial(number, state="queued")

    def add_latency(
        self,
        number: int,
        measurement: Measurement,
        purpose: str,
        target: str = "host",
        judged: bool = True,
        at: float | None = None,
    ) -> None:
        """Append a measurement on the device that the study calls `target`.

        A price becomes what the trial is judged by, unless `judged` is false: one on a further device. `at` is when it
        was made, UTC seconds (None = now); said again with the same time, nothing is appended.
        """
        values = {
            "purpose": purpose,
            "target": target,
            **latency_values(measurement),
            **{name: getattr(measurement, name) for name in _OF_TRIALS_ONLY},
            "p90_ms": measurement.summary.p90_ms,
        }
        if at is not None:
            values["measured_at"] = at
        with self._begin() as connection:
            key = self._key(connection, number)
            same = {"key": key, "on": target, "at": at}
            if at is not None and connection.execute(_SAME_LATENCY, same).first() is not None:
                return
            added = _new_id(connection.execute(_NEW_LATENCY, {"trial_id": key, **values}))
            rows = [
                {"latency_id": added, "process": i, "stride": measurement.stride, "samples_ms": _json_ms(samples)}
                for i, samples in enumerate(measurement.samples_ms)
            ]
            if rows:  # estimates and predictions have no samples
                connection.execute(_NEW_SAMPLES, rows)
            if purpose == "price" and judged:
                connection.execute(_CHANGE, {"key": key, "latency_id": added})

    def finish(self, number: int, state: str, **values: Any) -> None:
        """Put a trial into a final state with its outcome. What is final stays: a second outcome changes nothing."""
        assert state in FINAL_STATES, state
        with self._begin() as connection:
            outcome = {"state": state, "finished_at": time.time(), **values}
            connection.execute(_FINISH, {"key": self._key(connection, number), **outcome})

    def add_artifacts(self, number: int, files: Mapping[str, tuple[str, str]]) -> None:
        """Record files by name as (path, sha256), replacing those of an earlier attempt."""
        with self._begin() as connection:
            key = self._key(connection, number)
            connection.execute(_FORGET_ARTIFACTS, {"key": key, "names": list(files)})
            rows = [
                {"trial_id": key, "name": name, "path": path, "sha256": sha256, "removed": False}
                for name, (path, sha256) in files.items()
            ]
            connection.execute(_NEW_ARTIFACT, rows)

    def mark_removed(self, number: int) -> None:
        """Record that a retention rule removed a trial's files."""
        with self._begin() as connection:
            key = self._key(connection, number)
            connection.execute(sa.update(artifact).where(artifact.c.trial_id == key).values(removed=True))

    def mark_told(self, optuna_ids: Mapping[int, int]) -> None:
        """Record that Optuna's tables hold these trials, by number under these ids."""
        this = (trial.c.study_id == self.study_id) & (trial.c.number == sa.bindparam("of"))
        update = sa.update(trial).where(this).values(told=True, optuna_trial_id=sa.bindparam("key"))
        with self._begin() as connection:
            connection.execute(update, [{"of": number, "key": key} for number, key in optuna_ids.items()])

    def set_test_top1(self, number: int, top1: float) -> None:
        """Record the accuracy on the test split; the first figure stays."""
        with self._begin() as connection:
            unset = (trial.c.id == self._key(connection, number)) & trial.c.test_top1.is_(None)
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
        with self._begin() as connection:
            connection.execute(sa.insert(request).values(values))

    def pending_requests(self) -> list[EnqueuedConfig]:
        """Return enqueued configs that no trial has taken, oldest first."""
        query = (
            sa.select(request.c.id, request.c.config, request.c.training)
            .where(request.c.study_id == self.study_id, request.c.trial_number.is_(None))
            .order_by(request.c.id)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [
            EnqueuedConfig(row.id, CondenseNetConfig.from_json(row.config), json.loads(row.training)) for row in rows
        ]

    def retry_smaller(self, number: int, training: Mapping[str, Any], identity: str) -> None:
        """Give a trial other training settings, with the identity that follows, and let it wait for a worker.

        What it has of a curve belongs to the settings before, and goes.
        """
        with self._begin() as connection:
            key = self._key(connection, number)
            connection.execute(sa.delete(curve).where(curve.c.trial_id == key))
            values = {"training": json.dumps(training), "identity": identity, "state": "queued"}
            connection.execute(_CHANGE, {"key": key, **values})

    def request_cancel(self, number: int) -> None:
        """Ask for one trial to be cancelled."""
        self._set_trial(number, cancel_requested=True)

    def cancel_requests(self) -> list[int]:
        """Return the numbers of open trials that someone wants cancelled."""
        query = sa.select(trial.c.number).where(
            trial.c.study_id == self.study_id,
            trial.c.cancel_requested.is_(True),
            trial.c.state.in_(OPEN_STATES),
        )
        with self._read() as connection:
            return list(connection.scalars(query))

    def _set_trial(self, number: int, **values: Any) -> None:
        with self._begin() as connection:
            connection.execute(_CHANGE, {"key": self._key(connection, number), **values})

    def trials(self, states: tuple[str, ...] | None = None) -> list[reader.TrialRow]:
        """Return this study's trials (see `reader.read_trials`)."""
        return self.patience.call(lambda: reader.read_trials(self.engine, self.study_id, states=states))

    def trial(self, number: int) -> reader.TrialRow:
        """Return one trial that is known to exist."""
        return self.patience.call(lambda: reader.read_trials(self.engine, self.study_id, number))[0]


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
