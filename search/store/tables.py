"""The project's own tables, beside Optuna's in the same database. Every name starts with `condensery_`.

Times are UTC seconds since 1970 (float): no time zone can be lost on the way through a database. Documents (config,
settings, conditions) are JSON text. Columns with words of `vocabulary` are read as its enums.
"""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa

from search.store.vocabulary import (
    AttemptOutcome,
    EvaluatedSplit,
    LatencyKind,
    LatencyPurpose,
    ProposalReason,
    StudyEvent,
    TrialOrigin,
    TrialState,
)
from space.errors import StudyDamaged

FIRST_REVISION = "v0001"  # a database of another numbering is from before the first release
HEAD_REVISION = "v0012"  # the newest migration; a test holds it to the migrations folder
VERSION_TABLE = "condensery_alembic_version"

metadata = sa.MetaData()


class Word(sa.types.TypeDecorator[StrEnum]):
    """Text in the database, a word of a vocabulary in Python; another word is refused on both ways."""

    impl = sa.String
    cache_ok = True

    def __init__(self, vocabulary: type[StrEnum], length: int = 12) -> None:
        super().__init__(length)
        self.vocabulary, self.length = vocabulary, length

    def process_bind_param(self, value: StrEnum | str | None, dialect: sa.Dialect) -> str | None:
        """Return the word as text; raise ValueError if the vocabulary has no such word."""
        return None if value is None else str(self.vocabulary(value))

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> StrEnum | None:
        """Return the word.

        Raises:
            StudyDamaged: the vocabulary has no such word.
        """
        if value is None:
            return None
        try:
            return self.vocabulary(value)
        except ValueError:
            raise StudyDamaged(
                f"a row of the database must hold one of {', '.join(self.vocabulary)}, but holds {value[:40]!r}: "
                "someone edited it; correct that row, or restore the database from a backup."
            ) from None


def word_of(vocabulary: type[StrEnum], length: int = 12) -> Word:
    """Return the type of a column that holds one of a vocabulary's words as text, and is read as the enum."""
    return Word(vocabulary, length)


study = sa.Table(
    "condensery_study",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(100), nullable=False, unique=True),
    sa.Column("optuna_study_id", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("settings", sa.Text, nullable=False),  # JSON, every default resolved
    sa.Column("settings_hash", sa.String(64), nullable=False),
    sa.Column("frozen_hash", sa.String(64), nullable=False),
    sa.Column("versions", sa.Text, nullable=False),  # JSON: libraries, Python, machine
    sa.Column("data_info", sa.Text),  # JSON: workers.images.data_info.DataInfo
    sa.Column("stop_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("controller", sa.String(200)),  # host:pid of the process that asks
    sa.Column("controller_seen_at", sa.Float),
)

trial = sa.Table(
    "condensery_trial",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.ForeignKey("condensery_study.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),  # the same as Optuna's
    sa.Column("optuna_trial_id", sa.Integer),  # once it has ended and Optuna's tables hold it
    sa.Column("state", word_of(TrialState), nullable=False),
    sa.Column("origin", word_of(TrialOrigin), nullable=False),
    sa.Column("config", sa.Text, nullable=False),  # JSON
    sa.Column("config_hash", sa.String(64), nullable=False),
    sa.Column("training", sa.Text, nullable=False),  # JSON
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("identity", sa.String(64), nullable=False),  # config + training + data + seed: equal for duplicates
    sa.Column("macs", sa.BigInteger, nullable=False),
    sa.Column("params", sa.BigInteger, nullable=False),
    sa.Column("paper_flops", sa.BigInteger, nullable=False),
    sa.Column("latency_id", sa.Integer),  # the measurement it is judged by
    sa.Column("reason", sa.Text),  # why it is pruned, infeasible, a duplicate, failed or cancelled
    sa.Column("duplicate_of", sa.Integer),  # number of the trial that holds the result
    sa.Column("continues", sa.Integer),  # number of the trial, ended early, that this one takes up again
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("asked_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("top1", sa.Float),  # of the deployed network, on the validation split; so are the next four
    sa.Column("balanced_accuracy", sa.Float),
    sa.Column("macro_f1", sa.Float),
    sa.Column("top5", sa.Float),  # NULL with fewer than 10 classes
    sa.Column("calibration_error", sa.Float),
    sa.Column("expected_score", sa.Float),  # of a pruned trial: what it would have ended with, as predicted then
    sa.Column("val_loss", sa.Float),
    sa.Column("train_seconds", sa.Float),
    sa.Column("peak_memory_mb", sa.Float),
    sa.Column("test_top1", sa.Float),  # of the deployed network, on the test split; set once, by pick
    sa.Column("mirrored", sa.Boolean, nullable=False, default=False),  # whether Optuna's tables hold the outcome
    sa.UniqueConstraint("study_id", "number", name="condensery_trial_number"),
)
sa.Index("condensery_trial_identity", trial.c.study_id, trial.c.identity)
sa.Index("condensery_trial_state", trial.c.study_id, trial.c.state)

proposal = sa.Table(  # append-only: why a sampler that says so proposed a trial
    "condensery_proposal",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("reason", word_of(ProposalReason), nullable=False),
    sa.Column(
        "score", sa.Float
    ),  # predicted of the study's objective; NULL where nothing was modelled yet, as the next
    sa.Column("deviation", sa.Float),  # of that
    sa.Column("gain", sa.Float),  # expected in the front's hypervolume, as a share of it
)

belief = sa.Table(  # what the sampler believes now: one row for each study
    "condensery_belief",
    metadata,
    sa.Column("study_id", sa.ForeignKey("condensery_study.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("trainings", sa.Integer, nullable=False),  # that it rests on
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("document", sa.Text, nullable=False),  # JSON: predicted front and next candidates
)

predictions = sa.Table(  # append-only: what a network says of a split's images
    "condensery_predictions",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("split", word_of(EvaluatedSplit), primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),  # workers.metrics.Predictions as bytes
)

attempt = sa.Table(  # append-only but for its lease and its end
    "condensery_attempt",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),  # the controller that started it
    sa.Column("worker", sa.String(200)),  # host:pid of the process that trains, NULL until it has reported
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("heartbeat_at", sa.Float, nullable=False),  # when its worker last gave a sign of life
    sa.Column("epochs", sa.Integer, nullable=False),  # that no earlier attempt had reported
    sa.Column("progress", sa.Float),  # fraction of the schedule, as of a few seconds ago; NULL until the first report
    sa.Column("seconds", sa.Float),  # spent training at that point, over all attempts
    sa.Column("images_per_s", sa.Float),
    sa.Column("outcome", word_of(AttemptOutcome)),  # NULL while it runs
    sa.Column("reason", sa.Text),
    sa.Column("ended_at", sa.Float),
)
sa.Index("condensery_attempt_open", attempt.c.outcome, attempt.c.trial_id)

event = sa.Table(  # append-only: a log of what went wrong
    "condensery_event",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.ForeignKey("condensery_study.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer),  # of the trial; NULL for an event of the whole study
    sa.Column("attempt", sa.Integer),
    sa.Column("kind", word_of(StudyEvent, 20), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
sa.Index("condensery_event_study", event.c.study_id, event.c.id)

curve = sa.Table(
    "condensery_curve",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("train_loss", sa.Float, nullable=False),
    sa.Column("val_loss", sa.Float, nullable=False),
    sa.Column("val_top1", sa.Float, nullable=False),
    sa.Column("learning_rate", sa.Float, nullable=False),
    sa.Column("condensing_stage", sa.Integer, nullable=False),
    sa.Column("form", sa.String(12), nullable=False),  # training, condensed or deployed
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("images_per_s", sa.Float),  # trained in this epoch; NULL where it took no measurable time
    sa.Column("val_balanced_accuracy", sa.Float),  # NULL where only top-1 is recorded, as the next
    sa.Column("val_macro_f1", sa.Float),
)

latency = sa.Table(  # append-only
    "condensery_latency",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), nullable=False),
    sa.Column("purpose", word_of(LatencyPurpose), nullable=False),
    sa.Column("target", sa.String(200), nullable=False),  # as the study's latency.devices says
    sa.Column("model_hash", sa.String(64), nullable=False),
    sa.Column("device", sa.String(200), nullable=False),
    sa.Column("cpu_model", sa.String(200), nullable=False),
    sa.Column("runtime", sa.String(40), nullable=False),
    sa.Column("runtime_version", sa.String(40), nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("precision", sa.String(12), nullable=False),
    sa.Column("kind", word_of(LatencyKind), nullable=False),
    sa.Column("policy", sa.String(12), nullable=False),  # standard, quick; counts (estimated), model (predicted)
    sa.Column("extrapolates", sa.Boolean, nullable=False),  # outside the calibrated range
    sa.Column("median_ms", sa.Float, nullable=False),
    sa.Column("p90_ms", sa.Float),  # of samples: null for estimated and predicted
    sa.Column("interval_low_ms", sa.Float, nullable=False),
    sa.Column("interval_high_ms", sa.Float, nullable=False),
    sa.Column("anchor_drift", sa.Float),
    sa.Column("steady", sa.Boolean, nullable=False),
    sa.Column("peak_memory_mb", sa.Float),  # of a process that runs the model; NULL where it isn't known, as the next
    sa.Column("energy_mj", sa.Float),  # of the machine, for one run
    sa.Column("conditions", sa.Text, nullable=False),  # JSON
    sa.Column("measured_at", sa.Float, nullable=False),
)
sa.Index("condensery_latency_trial", latency.c.trial_id, latency.c.target)
sa.Index("condensery_latency_key", latency.c.model_hash, latency.c.device, latency.c.threads)

latency_samples = sa.Table(
    "condensery_latency_samples",
    metadata,
    sa.Column("latency_id", sa.ForeignKey("condensery_latency.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("process", sa.Integer, primary_key=True),
    sa.Column("stride", sa.Integer, nullable=False),  # every stride-th run was kept
    sa.Column("samples_ms", sa.Text, nullable=False),  # JSON list
    sa.Column("cpu_ms", sa.Text),  # JSON list: the CPU time of the same runs; NULL where it isn't known
)

point = sa.Table(  # append-only: a trained network's file in another precision than fp32, on one device
    "condensery_point",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), nullable=False),
    sa.Column("precision", sa.String(12), nullable=False),
    sa.Column("top1", sa.Float, nullable=False),  # of the file on the validation images, as the next
    sa.Column("score", sa.Float, nullable=False),  # what the study maximises
    sa.Column("file_bytes", sa.Integer, nullable=False),
    sa.Column("fine_tuned", sa.Boolean, nullable=False),
    sa.Column("target", sa.String(200), nullable=False),  # as in the table of latencies, as all that follows
    sa.Column("model_hash", sa.String(64), nullable=False),
    sa.Column("device", sa.String(200), nullable=False),
    sa.Column("cpu_model", sa.String(200), nullable=False),
    sa.Column("runtime", sa.String(40), nullable=False),
    sa.Column("runtime_version", sa.String(40), nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("kind", word_of(LatencyKind), nullable=False),
    sa.Column("policy", sa.String(12), nullable=False),
    sa.Column("extrapolates", sa.Boolean, nullable=False),
    sa.Column("median_ms", sa.Float, nullable=False),
    sa.Column("p90_ms", sa.Float),
    sa.Column("interval_low_ms", sa.Float, nullable=False),
    sa.Column("interval_high_ms", sa.Float, nullable=False),
    sa.Column("anchor_drift", sa.Float),
    sa.Column("steady", sa.Boolean, nullable=False),
    sa.Column("peak_memory_mb", sa.Float),
    sa.Column("energy_mj", sa.Float),
    sa.Column("conditions", sa.Text, nullable=False),  # JSON
    sa.Column("measured_at", sa.Float, nullable=False),
)
sa.Index("condensery_point_trial", point.c.trial_id, point.c.target)

file_predictions = sa.Table(  # append-only: what one file of a network says of a split's images, beside `predictions`
    "condensery_file_predictions",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("model_hash", sa.String(64), primary_key=True),  # of the file
    sa.Column("split", word_of(EvaluatedSplit), primary_key=True),
    sa.Column("precision", sa.String(12), nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),  # workers.metrics.Predictions as bytes
)

artifact = sa.Table(
    "condensery_artifact",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("path", sa.Text, nullable=False),  # in the study's folder
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("removed", sa.Boolean, nullable=False, default=False),  # by a retention rule
)

request = sa.Table(  # configs that a user wants tried
    "condensery_request",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.ForeignKey("condensery_study.id", ondelete="CASCADE"), nullable=False),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("training", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("trial_number", sa.Integer),  # of the trial that tries it; NULL while it waits
    sa.Column("withdrawn_at", sa.Float),  # NULL unless the user took it back before it was tried
)

note = sa.Table(  # the shortlist: a trial that was starred, or that something was noted about
    "condensery_note",
    metadata,
    sa.Column("trial_id", sa.ForeignKey("condensery_trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("starred", sa.Boolean, nullable=False),
    sa.Column("text", sa.Text, nullable=False),  # "" where it is only starred
    sa.Column("changed_at", sa.Float, nullable=False),
)

reference_latency = sa.Table(  # append-only: measured for a fit or a calibration, not for a trial
    "condensery_reference_latency",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("device", sa.String(200), nullable=False),
    sa.Column("runtime", sa.String(40), nullable=False),
    sa.Column("runtime_version", sa.String(40), nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("kind", word_of(LatencyKind), nullable=False),
    sa.Column("policy", sa.String(12), nullable=False),
    sa.Column("median_ms", sa.Float, nullable=False),
    sa.Column("interval_low_ms", sa.Float, nullable=False),
    sa.Column("interval_high_ms", sa.Float, nullable=False),
    sa.Column("steady", sa.Boolean, nullable=False),
    sa.Column("conditions", sa.Text, nullable=False),  # JSON
    sa.Column("measured_at", sa.Float, nullable=False),
)

device_fit = sa.Table(  # append-only: how well a device's latency is predicted; search.pricing.device_fit.DeviceFit
    "condensery_device_fit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("device", sa.String(200), nullable=False),
    sa.Column("runtime", sa.String(40), nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("kind", word_of(LatencyKind), nullable=False),
    sa.Column("networks", sa.Integer, nullable=False),
    sa.Column("median_error", sa.Float, nullable=False),
    sa.Column("p90_error", sa.Float, nullable=False),
    sa.Column("max_error", sa.Float, nullable=False),
    sa.Column("coverage_95", sa.Float, nullable=False),
    sa.Column("spearman", sa.Float),
    sa.Column("macs_spearman", sa.Float),
    sa.Column("fitted_at", sa.Float, nullable=False),
)
