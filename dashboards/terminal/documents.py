"""What `--json` prints: studies and trials as plain JSON values.

The names of keys say the units, accuracies and other scores are fractions 0..1, times are seconds since 1970 (UTC).
What isn't known is null; NaN and infinity are null too, for JSON has neither.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dashboards.data.beliefs import proposal_document
from dashboards.data.study_settings import public_settings
from dashboards.data.time_left import study_left_s
from dashboards.studies.overview import Summary
from search.results.class_figures import split_document
from search.results.remarks import NOTHING_SEEN, Seen
from search.store.reader import objective_of
from search.store.replayed import replayed_from
from search.store.rows import AttemptRow, EnqueuedConfig, EventRow, Proposal, StudyRow, StudyStatus, TrialRow
from workers.latency.record import LatencyRecord, Measurement
from workers.metrics import METRICS
from workers.training.reporting import ProgressReport


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: objects with text keys, lists, texts, finite numbers, booleans, null."""
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def latency_document(latency: LatencyRecord) -> dict[str, Any]:
    """Return a latency with its labels; of a `Measurement` its raw samples and conditions as well."""
    values = {field.name: plain(getattr(latency, field.name)) for field in dataclasses.fields(latency)}
    measured_at = values.pop("measured_at")
    return {**values, "measured_at_unix_s": measured_at}


def trial_document(row: TrialRow) -> dict[str, Any]:
    """Return one trial: its architecture, cost, the latency it is judged by, and its outcome."""
    return {
        "number": row.number,
        "state": row.state,
        "reason": row.reason,
        "origin": row.origin,
        "duplicate_of": row.duplicate_of,
        "continues": row.continues,
        "starred": row.starred,
        "note": row.note or None,
        "config": plain(row.config.to_dict()),
        "config_text": str(row.config),
        "training": plain(row.training),
        "seed": row.seed,
        "identity": row.identity,
        "macs": row.macs,
        "params": row.params,
        "paper_flops": row.paper_flops,
        "latency": None if row.latency is None else latency_document(row.latency),
        "other_latencies": [latency_document(other) for other in row.others],
        "objective": row.objective,
        "score": plain(row.score),
        "expected_score": plain(row.expected_score),
        **{name: plain(getattr(row, name)) for name in METRICS},
        "test_top1": plain(row.test_top1),
        "val_loss": plain(row.val_loss),
        "attempt": row.attempt,
        "cancel_requested": row.cancel_requested,
        "train_seconds": plain(row.train_seconds),
        "peak_memory_mb": plain(row.peak_memory_mb),
        "asked_at_unix_s": plain(row.asked_at),
        "started_at_unix_s": plain(row.started_at),
        "finished_at_unix_s": plain(row.finished_at),
    }


def trial_detail_document(
    row: TrialRow,
    curve: Sequence[Mapping[str, Any]],
    latencies: Sequence[Measurement],
    artifacts: Mapping[str, Mapping[str, Any]],
    report: ProgressReport | None = None,
    *,
    replayed: str | None = None,
    proposal: Proposal | None = None,
    seen: Seen = NOTHING_SEEN,
) -> dict[str, Any]:
    """Return one trial with its learning curve, every measurement (raw samples included) and its files.

    `report` is how far a running one is, `replayed` the table that stands in for its training, `proposal` what its
    sampler said of it, `seen` what its network said of the images.
    """
    return {
        **trial_document(row),
        "replayed_from": replayed,
        "proposal": proposal_document(proposal),
        "under_way": None if report is None else _report_document(report),
        "curve": plain(curve),
        "measurements": [latency_document(measurement) for measurement in latencies],
        "artifacts": plain(artifacts),
        "splits": plain({split: split_document(one, seen.class_names) for split, one in seen.splits.items()}),
        "remarks": list(seen.remarks),
    }


def trials_document(rows: Iterable[TrialRow], replayed: str | None = None) -> dict[str, Any]:
    """Return `{"trials": [...], ...}`; `replayed` is the table that stands in for the study's trainings."""
    return {"trials": [trial_document(row) for row in rows], "replayed_from": replayed}


def front_document(rows: Sequence[TrialRow], replayed: str | None = None) -> dict[str, Any]:
    """Return `{"front": [...], ...}`, in the order given (fastest first from `search.results.pareto.pareto_front`).

    `replayed` is the table that stands in for the study's trainings. Networks in other precisions are beside the front,
    so that each trial is on it once; their score and latency are those of their files.
    """
    trials = [trial_document(row) for row in rows if not row.file_hash]
    of_files: dict[str, list[dict[str, Any]]] = {"front_int8": [], "front_fp16": []}
    for row in rows:
        if row.file_hash and row.latency is not None:
            of_files[f"front_{row.latency.precision}"].append(trial_document(row))
    return {"front": trials, **of_files, "replayed_from": replayed}


def queue_document(waiting: Iterable[EnqueuedConfig]) -> dict[str, Any]:
    """Return `{"queue": [...]}`, the next one first."""
    return {
        "queue": [
            {"number": one.id, "config": plain(one.config.to_dict()), "training": plain(one.training)}
            | {"enqueued_at_unix_s": plain(one.created_at)}
            for one in waiting
        ]
    }


def study_document(
    study: StudyRow, status: StudyStatus, now: float | None = None, state: str | None = None
) -> dict[str, Any]:
    """Return one study: its settings (database password hidden), how many trials are in each state, who runs what.

    Ages are those at `now`, UTC seconds since 1970; None = this moment. `state` is what the study is doing.
    """
    at = time.time() if now is None else now
    return {
        "name": study.name,
        "state": state,
        "created_at_unix_s": plain(study.created_at),
        "replayed_from": replayed_from(study.settings),
        "objective": objective_of(study.settings),
        "trials_by_state": plain(status.counts),
        "trials": sum(status.counts.values()),
        "waiting_requests": status.waiting,
        "stop_requested": study.stop_requested,
        "controller": study.controller,
        "controller_seen_at_unix_s": plain(study.controller_seen_at),
        "controller_age_s": None if study.controller_seen_at is None else plain(at - study.controller_seen_at),
        "left_s": plain(study_left_s(study, status)) if study.controller else None,
        "running": [_attempt_document(attempt, at) for attempt in status.running],
        "events": [_event_document(event, at) for event in status.events],
        "settings": plain(public_settings(study.settings)),
        "settings_hash": study.settings_hash,
        "frozen_hash": study.frozen_hash,
        "data_info": plain(study.data_info),
        "versions": plain(study.versions),
    }


def _attempt_document(attempt: AttemptRow, now: float) -> dict[str, Any]:
    return {
        "trial": attempt.number,
        "attempt": attempt.attempt,
        "worker": attempt.worker,
        "owner": attempt.owner,
        "epochs": attempt.epochs,
        "under_way": None if attempt.report is None else _report_document(attempt.report),
        "started_at_unix_s": plain(attempt.started_at),
        "heartbeat_at_unix_s": plain(attempt.heartbeat_at),
        "heartbeat_age_s": plain(now - attempt.heartbeat_at),
    }


def _report_document(report: ProgressReport) -> dict[str, Any]:
    return {
        "progress": plain(report.progress),
        "train_seconds": plain(report.seconds),
        "images_per_s": plain(report.images_per_s),
        "left_s": plain(report.left_s),
    }


def _event_document(event: EventRow, now: float) -> dict[str, Any]:
    return {
        "kind": event.kind,
        "trial": event.number,
        "attempt": event.attempt,
        "detail": event.detail,
        "at_unix_s": plain(event.at),
        "age_s": plain(now - event.at),
    }


def studies_document(studies: Iterable[Summary]) -> dict[str, Any]:
    """Return `{"studies": [...]}`: what each is doing, its best network within its budget, and what to run next."""
    return {
        "studies": [
            {
                "name": one.study.name,
                "state": str(one.state),
                "replayed_from": replayed_from(one.study.settings),
                "created_at_unix_s": plain(one.study.created_at),
                "newest_activity_at_unix_s": plain(one.activity.newest_at),
                "trials": one.activity.trials,
                "trainings": one.activity.trainings,
                "trainings_wanted": one.wanted,
                "best": None if one.best is None else plain(dataclasses.asdict(one.best)),
                "next_command": one.step.command,
                "controller": one.study.controller,
                "stop_requested": one.study.stop_requested,
                "settings_hash": one.study.settings_hash,
            }
            for one in studies
        ]
    }
