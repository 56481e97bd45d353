"""Writing a study: every step of a trial is one transaction, and repeating a step changes nothing.

One process at a time writes a study's trials (the controller, see `claim`); `pick` appends verifications, and any
process may leave requests (stop, cancel, enqueue) that the controller reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from search.store import reader
from search.store.attempts import Attempts
from search.store.beliefs import Beliefs
from search.store.controller_lease import ControllerLease
from search.store.notes import Notes
from search.store.places import as_recorded
from search.store.reader.requests import IS_WAITING, waiting_requests
from search.store.rows import EnqueuedConfig, NewTrial, TrialRow
from search.store.studies import new_id
from search.store.tables import (
    artifact,
    curve,
    file_predictions,
    latency,
    latency_samples,
    point,
    predictions,
    request,
    trial,
)
from search.store.vocabulary import FINAL_STATES, OPEN_STATES, EvaluatedSplit, LatencyPurpose, TrialState
from space.config import CondenseNetConfig
from workers.latency.record import RECORD_FIELDS, Measurement

# Built once; see `connection.transactions`. Updates change the columns that the parameters name.
_NEW_TRIAL, _NEW_LATENCY, _NEW_SAMPLES, _NEW_ARTIFACT = map(sa.insert, (trial, latency, latency_samples, artifact))
_CHANGE = sa.update(trial).where(trial.c.id == sa.bindparam("key"))
_FINISH = _CHANGE.where(trial.c.state.not_in(FINAL_STATES))
_SAME_LATENCY = sa.select(latency.c.id).where(
    latency.c.trial_id == sa.bindparam("key"),
    latency.c.target == sa.bindparam("on"),
    latency.c.measured_at == sa.bindparam("at"),
)
_NEW_PREDICTIONS, _NEW_POINT = sa.insert(predictions), sa.insert(point)
_SAME_PREDICTIONS = sa.select(predictions.c.trial_id).where(
    predictions.c.trial_id == sa.bindparam("trial_id"), predictions.c.split == sa.bindparam("split")
)
_SAME_FILE_PREDICTIONS = sa.select(file_predictions.c.trial_id).where(
    *(file_predictions.c[name] == sa.bindparam(name) for name in ("trial_id", "model_hash", "split"))
)
_FORGET_ARTIFACTS = sa.delete(artifact).where(
    artifact.c.trial_id == sa.bindparam("key"), artifact.c.name.in_(sa.bindparam("names", expanding=True))
)


class StudyStore(ControllerLease, Attempts, Beliefs, Notes):
    """The write side of one study."""

    def update_settings(self, settings: Mapping[str, Any], settings_hash: str) -> None:
        """Store the settings of a resumed study (only settings that are not frozen may differ)."""
        with self._begin() as connection:
            recorded = as_recorded(settings, self.engine.url)
            self._set_study(connection, settings=json.dumps(recorded), settings_hash=settings_hash)

    def set_data_info(self, info: Mapping[str, Any]) -> None:
        """Store the facts of the images: sizes of the splits, classes, mean and standard deviation, fingerprint."""
        with self._begin() as connection:
            self._set_study(connection, data_info=json.dumps(info))

    # -- trials --

    def add_trial(self, new: NewTrial, answers: EnqueuedConfig | None = None, at: float | None = None) -> int:
        """Insert a proposal in state `asked`; return its row id.

        The enqueued config that it answers is marked in the same transaction. `at` is when it was asked, UTC seconds;
        None = now.
        """
        values = {
            "study_id": self.study_id,
            "number": new.number,
            "state": TrialState.ASKED,
            "origin": new.origin,
            "config": new.config.to_json(),
            "config_hash": new.config.digest,
            "training": json.dumps(new.training),
            "seed": new.seed,
            "identity": new.identity,
            "continues": new.continues,
            "macs": new.cost.macs,
            "params": new.cost.params,
            "paper_flops": new.cost.paper_flops,
            "attempt": 0,
            "cancel_requested": False,
            "mirrored": False,
            "asked_at": self.clock.now() if at is None else at,
        }
        with self._begin() as connection:
            self._keys.pop(new.number, None)  # it may be of a transaction that was rolled back
            recorded = self._key(connection, new.number)
            if recorded is not None:  # an earlier commit succeeded, but its answer was lost
                return recorded
            key = new_id(connection.execute(_NEW_TRIAL, values))
            if new.proposal is not None:
                self._add_proposal(connection, key, new.proposal)
            if answers is not None:
                answered = sa.update(request).where(request.c.id == answers.id)
                connection.execute(answered.values(trial_number=new.number, withdrawn_at=None))
        return key

    def set_queued(self, number: int) -> None:
        """Record that a priced trial waits for a worker, for the first time or again."""
        self._set_trial(number, state=TrialState.QUEUED)

    def add_latency(self, number: int, measurement: Measurement, judged: bool = True) -> None:
        """Append a latency of a trial, for the target and the purpose that it names.

        A price becomes what the trial is judged by, unless `judged` is false: one on a further device. Where the
        measurement says when it was made, recording it again appends nothing.
        """
        at = measurement.measured_at
        with self._begin() as connection:
            key = self._key(connection, number)
            same = {"key": key, "on": measurement.target, "at": at}
            if at is not None and connection.execute(_SAME_LATENCY, same).first() is not None:
                return
            added = new_id(connection.execute(_NEW_LATENCY, {"trial_id": key, **latency_values(measurement)}))
            rows = [
                {
                    "latency_id": added,
                    "process": i,
                    "stride": measurement.stride,
                    "samples_ms": _json_ms(samples),
                    "cpu_ms": _json_ms(measurement.cpu_ms[i]) if measurement.cpu_ms else None,
                }
                for i, samples in enumerate(measurement.samples_ms)
            ]
            if rows:  # estimates and predictions have no samples
                connection.execute(_NEW_SAMPLES, rows)
            if judged and measurement.purpose == LatencyPurpose.PRICE:
                connection.execute(_CHANGE, {"key": key, "latency_id": added})

    def add_point(
        self, number: int, measurement: Measurement, top1: float, score: float, file_bytes: int, fine_tuned: bool
    ) -> None:
        """Append a trial's file in the measurement's precision, with its latency; see `rows.PointRow`."""
        of_file = {"top1": top1, "score": score, "file_bytes": file_bytes, "fine_tuned": fine_tuned}
        with self._begin() as connection:
            values = {"trial_id": self._key(connection, number), **of_file}
            connection.execute(_NEW_POINT, {**values, **latency_values(measurement, point)})

    def finish(self, number: int, state: TrialState, **values: Any) -> None:
        """Put a trial into a final state with its outcome. The first outcome stays: a second changes nothing."""
        assert state in FINAL_STATES, state
        with self._begin() as connection:
            outcome = {"state": state, "finished_at": self.clock.now(), **values}
            connection.execute(_FINISH, {"key": self._key(connection, number), **outcome})

    def add_artifacts(self, number: int, files: Mapping[str, tuple[str, str]]) -> None:
        """Record files by name as (path in the study's folder, sha256), replacing those of an earlier attempt."""
        with self._begin() as connection:
            key = self._key(connection, number)
            connection.execute(_FORGET_ARTIFACTS, {"key": key, "names": list(files)})
            rows = [
                {"trial_id": key, "name": name, "path": path, "sha256": sha256, "removed": False}
                for name, (path, sha256) in files.items()
            ]
            connection.execute(_NEW_ARTIFACT, rows)

    def mark_removed(self, number: int) -> None:
        """Record that a retention rule removes a trial's files."""
        with self._begin() as connection:
            key = self._key(connection, number)
            connection.execute(sa.update(artifact).where(artifact.c.trial_id == key).values(removed=True))

    def mark_mirrored(self, optuna_ids: Mapping[int, int]) -> None:
        """Record that Optuna's tables hold these trials; `optuna_ids` are their ids there, by number."""
        is_trial = (trial.c.study_id == self.study_id) & (trial.c.number == sa.bindparam("of"))
        update = sa.update(trial).where(is_trial).values(mirrored=True, optuna_trial_id=sa.bindparam("key"))
        with self._begin() as connection:
            connection.execute(update, [{"of": number, "key": key} for number, key in optuna_ids.items()])

    def set_test_top1(self, number: int, top1: float) -> None:
        """Record the accuracy on the test split; the first value stays."""
        with self._begin() as connection:
            unset = (trial.c.id == self._key(connection, number)) & trial.c.test_top1.is_(None)
            connection.execute(sa.update(trial).where(unset).values(test_top1=top1))

    def add_predictions(self, number: int, split: EvaluatedSplit, content: bytes) -> None:
        """Record what a trial's network says of a split's images (`workers.metrics.Predictions`); the first stay."""
        with self._begin() as connection:
            values = {"trial_id": self._key(connection, number), "split": split}
            if connection.execute(_SAME_PREDICTIONS, values).first() is None:
                connection.execute(_NEW_PREDICTIONS, {**values, "content": content})

    def add_file_predictions(
        self, number: int, sha256: str, precision: str, split: EvaluatedSplit, content: bytes
    ) -> None:
        """Record what one file of a trial's network, by its SHA-256, says of a split's images; the first stay."""
        with self._begin() as connection:
            key = {"trial_id": self._key(connection, number), "model_hash": sha256, "split": split}
            if connection.execute(_SAME_FILE_PREDICTIONS, key).first() is None:
                values = {**key, "precision": precision, "content": content}
                connection.execute(sa.insert(file_predictions).values(values))

    # -- requests of users --

    def enqueue(self, config: CondenseNetConfig, training: Mapping[str, Any]) -> int:
        """Leave a config for the controller to try next; return the number that it waits under."""
        values = {
            "study_id": self.study_id,
            "config": config.to_json(),
            "training": json.dumps(training),
            "created_at": self.clock.now(),
        }
        with self._begin() as connection:
            return new_id(connection.execute(sa.insert(request).values(values)))

    def withdraw(self, number: int) -> bool:
        """Take back an enqueued config; return whether it was still waiting."""
        waits = (request.c.id == number) & (request.c.study_id == self.study_id) & IS_WAITING
        with self._begin() as connection:
            update = sa.update(request).where(waits).values(withdrawn_at=self.clock.now())
            return connection.execute(update).rowcount > 0

    def pending_requests(self, most: int = 200) -> list[EnqueuedConfig]:
        """Return the enqueued configs that no trial has taken up, oldest first; at most `most`, for there may be many.

        A controller asks four times a second.
        """
        with self._read() as connection:
            return waiting_requests(connection, self.study_id, most)

    def retry_smaller(self, number: int, training: Mapping[str, Any], identity: str) -> None:
        """Give a trial other training settings and the identity that follows from them, and queue it again.

        Its learning curve so far belongs to the settings before, and is deleted.
        """
        with self._begin() as connection:
            key = self._key(connection, number)
            connection.execute(sa.delete(curve).where(curve.c.trial_id == key))
            values = {"training": json.dumps(training), "identity": identity, "state": TrialState.QUEUED}
            connection.execute(_CHANGE, {"key": key, **values})

    def request_cancel(self, number: int) -> None:
        """Ask for one trial to be cancelled."""
        self._set_trial(number, cancel_requested=True)

    def cancel_requests(self) -> list[int]:
        """Return the numbers of the open trials that a user wants cancelled."""
        query = sa.select(trial.c.number).where(
            trial.c.study_id == self.study_id,
            trial.c.cancel_requested.is_(True),
            trial.c.state.in_(OPEN_STATES),
        )
        with self._read() as connection:
            return list(connection.scalars(query))

    def newest_time(self) -> float:
        """Return the latest time of any trial, UTC seconds since 1970; 0 while there is none."""
        times = (trial.c.asked_at, trial.c.started_at, trial.c.finished_at)
        query = sa.select(*map(sa.func.max, times)).where(trial.c.study_id == self.study_id)
        with self._read() as connection:
            return max((value for value in connection.execute(query).one() if value is not None), default=0.0)

    def _set_trial(self, number: int, **values: Any) -> None:
        with self._begin() as connection:
            connection.execute(_CHANGE, {"key": self._key(connection, number), **values})

    def trials(self, states: Sequence[TrialState] | None = None) -> list[TrialRow]:
        """Return this study's trials (see `reader.read_trials`)."""
        return self.patience.call(lambda: reader.read_trials(self.engine, self.study_id, states=states))

    def trial(self, number: int) -> TrialRow:
        """Return one trial, which must exist."""
        return self.patience.call(lambda: reader.read_trials(self.engine, self.study_id, number))[0]

    def prices(self, row: TrialRow) -> dict[str, Measurement]:
        """Return what a trial was priced at last on each device, by the device's name in the study."""
        measured = self.patience.call(lambda: reader.read_latencies(self.engine, row.id))
        return {one.target: one for one in measured if one.purpose == LatencyPurpose.PRICE}


def latency_values(measurement: Measurement, table: sa.Table = latency) -> dict[str, Any]:
    """Return a measurement's columns in a table of latencies (`latency` or `reference_latency`)."""
    values = {name: getattr(measurement, name) for name in RECORD_FIELDS if name in table.c}
    if measurement.measured_at is None:
        values["measured_at"] = time.time()
    return {**values, "conditions": json.dumps(measurement.conditions)}


def _json_ms(samples: tuple[float, ...]) -> str:
    return json.dumps([round(sample, 6) for sample in samples])  # nanoseconds
