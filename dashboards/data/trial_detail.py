"""All that is recorded of one trial. It is read by SELECTs and one look at its files; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from dashboards.data.study_settings import public_settings
from dashboards.formats import one_line
from search.results.predictions import read_predictions
from search.results.remarks import NOTHING_SEEN, Seen, seen_by
from search.results.trained_files import trained_file
from search.store import reader
from search.store.rows import AttemptRow, EventRow, Proposal, StudyRow, TrialRow
from search.store.tables import attempt, curve, event, latency, trial
from search.store.vocabulary import TrialState
from space.errors import CheckpointCorrupt, TrialNotReady
from workers.file_names import NETWORK_FILE
from workers.latency.record import Measurement
from workers.training.reporting import ProgressReport

MOST_EVENTS = 100
INDEX = ".conv_1x1.index"  # how the names of the indices end
NO_TRIAL = "No trial is chosen: click a point in a chart, or a row of the table."


@dataclass(frozen=True)
class FileDetail:
    """One file of a trial as recorded."""

    name: str
    path: str
    sha256: str
    removed: bool  # by the retention rule


@dataclass(frozen=True)
class TrialDetail:
    """Everything recorded of one trial."""

    study: StudyRow
    row: TrialRow
    curve: tuple[Mapping[str, Any], ...]  # by epoch; see search.store.tables.curve
    measurements: tuple[Measurement, ...]  # oldest first
    files: tuple[FileDetail, ...]
    attempts: tuple[AttemptRow, ...]
    events: tuple[EventRow, ...]  # the newest `MOST_EVENTS`, newest first
    data: Mapping[str, Any]  # settings of the images
    settings: Mapping[str, Any]  # the study's, without its database's password
    proposal: Proposal | None = None  # what its sampler said of it
    seen: Seen = NOTHING_SEEN  # what its network said of the images

    @property
    def name(self) -> str:
        """What charts and tables call the trial."""
        return f"trial {self.row.number}"

    @property
    def report(self) -> ProgressReport | None:
        """How far a running trial is; None for another, and until its worker has said so."""
        running = [attempt.report for attempt in self.attempts if attempt.outcome is None]
        return running[-1] if running and self.row.state == TrialState.RUNNING else None

    def is_judged_by(self, measurement: Measurement) -> bool:
        """Whether the trial is judged by this one of its measurements."""
        return measurement.record == self.row.latency


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """Which channels a trained network gathers, as its file says, or why that can't be read here."""

    indices: Mapping[str, NDArray[np.int64]] | None  # by the tensor's name, "layers.0.conv_1x1.index" and so on
    reason: str | None = None


def read_trial_detail(engine: sa.Engine, study: StudyRow, number: int) -> TrialDetail:
    """Return everything recorded of one trial.

    Raises:
        TrialNotFound: the study has none of this number.
    """
    row = reader.find_trial(engine, study, number)
    settings = public_settings(study.settings)
    data = settings.get("data")
    return TrialDetail(
        study=study,
        row=row,
        curve=tuple(reader.read_curve(engine, row.id)),
        measurements=tuple(reader.read_latencies(engine, row.id)),
        files=tuple(
            FileDetail(name, **values) for name, values in sorted(reader.read_artifacts(engine, row.id).items())
        ),
        attempts=tuple(reader.read_attempts(engine, study.id, number=number)),
        events=tuple(reader.newest_events(engine, study.id, MOST_EVENTS, number=number)),
        data=data if isinstance(data, Mapping) else {},
        settings=settings,
        proposal=read_predictions(engine, study.id, newest=1, up_to=number).get(number),
        seen=seen_by(engine, study, row),
    )


def read_growth(engine: sa.Engine, study_id: int, number: int) -> tuple[Any, ...]:
    """Return what changes while a trial is open: its epochs, how far it is, its latencies, events and attempts."""
    own = sa.select(trial.c.id).where(trial.c.study_id == study_id, trial.c.number == number).scalar_subquery()
    queries = (
        sa.select(sa.func.count(), sa.func.sum(curve.c.seconds)).where(curve.c.trial_id == own),
        sa.select(sa.func.max(latency.c.id)).where(latency.c.trial_id == own),
        sa.select(sa.func.max(event.c.id)).where(event.c.study_id == study_id, event.c.number == number),
        sa.select(sa.func.count(), sa.func.count(attempt.c.worker), sa.func.sum(attempt.c.seconds)).where(
            attempt.c.trial_id == own
        ),
    )
    with engine.connect() as connection:
        return tuple(value for query in queries for value in connection.execute(query).one())


def read_trained_network(engine: sa.Engine, row: TrialRow) -> TrainedNetwork:
    """Return which channels a trial's trained network gathers; its file must be the one that was recorded."""
    try:
        return gathered_channels(trained_file(engine, row, NETWORK_FILE))
    except (TrialNotReady, CheckpointCorrupt) as error:
        text = str(error)
        return TrainedNetwork(None, text[:1].upper() + text[1:])


def gathered_channels(path: Path) -> TrainedNetwork:
    """Return the indices in a network's safetensors file; nothing else of it is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            names = [name for name in tensors.keys() if name.endswith(INDEX)]  # noqa: SIM118  not a dict
            return TrainedNetwork({name: tensors.get_tensor(name) for name in names})
    except (SafetensorError, OSError) as error:
        return TrainedNetwork(None, f"{path} is damaged ({one_line(error, 200)}).")
