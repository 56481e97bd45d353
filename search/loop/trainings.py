"""Trainings: hands queued trials to workers and decides, from what workers report, how each attempt ends.

When a worker dies, its trial loses the attempt and goes on from its checkpoint with the next one. News of an attempt
that was given up is refused, and recorded as such.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.engines.base import Engine
from search.engines.events import (
    AttemptEnd,
    Done,
    EngineEvent,
    EpochEnded,
    Failed,
    Lost,
    RecordedEvent,
    Resumed,
    Started,
    Stopped,
    UnderWay,
)
from search.loop.outcomes import (
    CurveRestored,
    Decision,
    Dispatched,
    Ended,
    EpochReported,
    LateNews,
    Requeued,
    WorkerKnown,
    cancelled,
    ended,
    queued_again,
)
from search.loop.record import Recorder
from search.loop.state import RunningTrial
from search.loop.times import LoopTimes
from search.store.rows import TrialRow
from search.store.vocabulary import AttemptOutcome, StudyEvent, TrialState
from space.errors import (
    DataNotFound,
    DiskFull,
    InvalidSettings,
    OutOfMemory,
    ReadOnlyFolder,
    TrainingFailed,
    UnreadableImage,
)
from workers.file_names import NETWORK_FILE, ONNX_FILE, trial_folder
from workers.metrics import METRICS
from workers.settings import TrainingSettings
from workers.training.job import TrialJob, TrialResult, trial_identity
from workers.training.reporting import ProgressReport
from workers.training.start import start_file

# Errors that every other trial would meet too: the search stops, and the trial stays open.
FATAL = {error.exit_code: error for error in (DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage, InvalidSettings)}
LATE = {  # what a note calls an event of an attempt that was given up
    Resumed: "a checkpoint's curve",
    EpochEnded: "an epoch",
    Done: "a result",
    Failed: "a failure",
    Stopped: "a stop",
    Lost: "a loss",
}


@dataclass(frozen=True)
class Images:
    """The decoded images that a study trains on."""

    cache: Path  # the folder that holds them
    fingerprint: str = ""  # see `workers.images.data_info.DataInfo`; "" accepts any images there


class Trainings:
    """The running trials: their dispatch, their workers' signs of life, and their ends."""

    def __init__(self, recorder: Recorder, engine: Engine, images: Images, times: LoopTimes) -> None:
        self._recorder, self._state, self._clock = recorder, recorder.state, recorder.clock
        self._engine, self._images, self._times = engine, images, times
        self._renewed_at = self._reported_at = -1e9

    def replay(self, rows: Sequence[TrialRow]) -> None:
        """Read the study's recorded curves and retries; called once, at the start."""
        state, store = self._state, self._recorder.store
        state.tried_smaller |= store.transact(lambda: store.numbers_of_event(StudyEvent.SMALLER_BATCH))
        if state.rule.enabled:
            by_number = {row.number: row for row in rows}
            for number, epochs in store.transact(store.curves).items():
                state.rule.observe(by_number[number], epochs)
                state.rule.finish(by_number[number])

    # -- dispatch --

    def dispatch(self) -> None:
        """Start as many queued trials as there are free workers."""
        rows = self._next(self._engine.free_slots())
        self._recorder.record([Dispatched(row) for row in rows])
        for row in rows:
            if row.continues is not None:
                self._recorder.files.carry_over(row.continues, row.number)
            self._engine.submit(self._job(row))

    def _next(self, free: int) -> list[TrialRow]:
        """Return the queued trials that are to run now, as their next attempts."""
        rows: list[TrialRow] = []
        for row in self._state.queue:
            ahead = sum(other.continues is None for other in rows)
            if len(rows) < free and self._state.needs(row, ahead):
                rows.append(replace(row, state=TrialState.RUNNING, attempt=row.attempt + 1))
        return rows

    def _job(self, row: TrialRow) -> TrialJob:
        settings, start = self._state.settings, start_file(row.training)
        return TrialJob(
            study=settings.study.name,
            number=row.number,
            attempt=row.attempt,
            config=row.config,
            training=TrainingSettings.model_validate(row.training),
            data=settings.data,
            seed=row.seed,
            folder=str(self._recorder.files.folder(row.number)),
            cache=str(self._images.cache),
            device=settings.engine.device,
            kernel=settings.engine.kernel,
            recompute=settings.engine.recompute,
            time_limit_s=settings.limits.trial_time_s,
            checkpoint_every_s=settings.limits.checkpoint_every_s,
            data_fingerprint=self._images.fingerprint,
            epochs_before=0 if row.continues is None else self._epochs_of(row.continues),
            int8_for=row.latency.runtime if row.latency is not None and row.latency.precision == "int8" else "",
            start="" if start is None else str(self._recorder.files.root / start),
        )

    def _epochs_of(self, number: int) -> int:
        """Return how many epochs are recorded of a trial."""
        store = self._recorder.store
        return store.transact(lambda: store.epochs_of(number))

    # -- while they run --

    def renew_attempts(self) -> None:
        """Renew the leases of the trials whose workers live; give up attempts whose workers are silent for too long."""
        running, now = self._state.running, self._clock.monotonic()
        if not running or now - self._renewed_at < self._times.renew_s:
            return
        alive = self._engine.alive()
        for number in running.keys() & set(alive):
            running[number].heard_at = now
        store, reports = self._recorder.store, self._new_reports(now)

        def renew() -> None:
            store.renew_attempts(alive)
            store.set_reports(reports)

        store.transact(renew)
        self._renewed_at = now
        if reports:
            self._reported_at = now
            for number, _ in reports:
                running[number].report = None
        for number, trial in list(running.items()):
            if now - trial.heard_at > self._times.silent_s:
                self._engine.cancel(number)
                reason = f"nothing was heard of its worker for {self._times.silent_s:.0f} s"
                self.observe([Lost(number, trial.row.attempt, reason)])

    def _new_reports(self, now: float) -> dict[tuple[int, int], ProgressReport]:
        """Return how far the running trials are, by number and attempt, as far as that is due to be recorded."""
        if now - self._reported_at < self._times.reports_s:
            return {}
        running = self._state.running.items()
        return {(number, trial.row.attempt): trial.report for number, trial in running if trial.report is not None}

    def observe(self, events: Sequence[EngineEvent]) -> None:
        """Record the workers' events in the order they came; end the trials that the stopping rule gave up."""
        self._take_reports(event for event in events if isinstance(event, UnderWay))
        for batch in _cut_before_losses([event for event in events if not isinstance(event, UnderWay)]):
            self._recorder.record(self._decide(batch))
        for number in {event.number for event in events if isinstance(event, EpochEnded)}:
            trial = self._state.running.get(number)
            if trial is not None and trial.pruned_because is not None and not trial.told_to_end:
                if self._state.rule.takes_up:
                    self._engine.stop(number)
                else:
                    self._engine.cancel(number)
                trial.told_to_end = True

    def _take_reports(self, events: Iterable[UnderWay]) -> None:
        """Show how far trials are; that is recorded only now and then, with their leases."""
        for event in events:
            trial = self._state.running.get(event.number)
            if trial is not None and trial.row.attempt == event.attempt:
                trial.heard_at, trial.report = self._clock.monotonic(), event.report
                self._recorder.callback.under_way(event.number, event.report)

    # -- deciding, which changes nothing yet --

    def _decide(self, events: Sequence[RecordedEvent]) -> list[Decision]:
        """Return the decisions that follow from a batch of events."""
        decisions: list[Decision] = []
        ended_now: set[int] = set()  # trials whose attempt ends within this batch
        for event in events:
            trial = self._state.running.get(event.number)
            if trial is None or trial.row.attempt != event.attempt or event.number in ended_now:
                decisions += [news for news in self._late(event) if news not in decisions]
                continue
            match event:
                case Started(worker=worker):
                    decisions.append(WorkerKnown(trial.row, worker))
                case Resumed(epochs=epochs):
                    decisions.append(CurveRestored(trial.row, epochs))
                case EpochEnded(epoch=epoch):
                    decisions.append(EpochReported(trial.row, epoch))
                case _:
                    decisions.append(self._end_of(trial, event))
                    ended_now.add(event.number)
        return decisions

    def _late(self, event: RecordedEvent) -> list[LateNews]:
        """Return the note on an event that comes too late; none if it needs none or the same is noted already."""
        if isinstance(event, Started):
            return []
        news = LateNews(event.number, event.attempt, LATE[type(event)])
        return [] if news in self._state.late_news else [news]

    def _end_of(self, trial: RunningTrial, end: AttemptEnd) -> Ended | Requeued:
        """Return the decision on a trial whose attempt has ended."""
        row, now = trial.row, self._clock.now()
        if not isinstance(end, Done) and row.number in self._state.cancelled:
            return cancelled(row, now)
        # A worker that is cancelled reports a failed training, or dies first, or has finished just before.
        # One that may be taken up again is told to stop, and writes its checkpoint.
        gave_up = isinstance(end, Lost | Stopped) or (
            isinstance(end, Failed) and end.exit_code == TrainingFailed.exit_code
        )
        if trial.pruned_because is not None and gave_up:
            stopped = replace(row, expected_score=trial.expected_score)
            return ended(stopped, TrialState.PRUNED, now, trial.pruned_because)
        match end:
            case Done(result=result):
                return self._done(row, result)
            case Stopped():
                return queued_again(row, AttemptOutcome.STOPPED)
            case Lost(reason=reason):
                return self._after_loss(row, reason)
            case Failed():
                return self._after_failure(row, end)

    def _done(self, row: TrialRow, result: TrialResult) -> Ended:
        folder = trial_folder(row.number)
        hashes = {NETWORK_FILE: result.network_sha256, ONNX_FILE: result.onnx_sha256}
        done = replace(
            row,
            state=TrialState.DONE,
            finished_at=self._clock.now(),
            **{name: getattr(result, name) for name in METRICS},
            val_loss=result.val_loss,
            train_seconds=result.train_seconds,
            peak_memory_mb=result.peak_memory_mb,
        )
        files = {name: (f"{folder}/{name}", sha256) for name, sha256 in hashes.items() if sha256}
        predictions = None if result.predictions is None else base64.b64decode(result.predictions)
        exact = None if result.fp32_predictions is None else base64.b64decode(result.fp32_predictions)
        return Ended(done, AttemptOutcome.DONE, files=files, predictions=predictions, fp32_predictions=exact)

    def _after_loss(self, row: TrialRow, reason: str) -> Ended | Requeued:
        """Return a dead worker's trial to the queue, or fail it after too many losses in a row."""
        store = self._recorder.store
        lost = store.transact(lambda: store.losses_in_a_row(row.number, row.attempt))
        if lost < self._state.settings.limits.lost_attempts:
            return queued_again(row, AttemptOutcome.LOST, reason)
        text = f"{lost} attempts in a row were lost, the last because {reason}"
        return ended(row, TrialState.FAILED, self._clock.now(), text, AttemptOutcome.LOST)

    def _after_failure(self, row: TrialRow, failure: Failed) -> Ended | Requeued:
        """Fail the trial, unless every other would fail for the same reason, or half the batch size may help."""
        if failure.exit_code in FATAL:
            error = FATAL[failure.exit_code](failure.reason)
            return replace(queued_again(row, AttemptOutcome.FAILED, failure.reason), fatal=error)
        smaller = self._smaller(row) if failure.exit_code == OutOfMemory.exit_code else None
        if smaller is None:
            return ended(row, TrialState.FAILED, self._clock.now(), failure.reason)
        identity = trial_identity(row.config, smaller, self._state.settings.data, row.seed)
        changed = replace(row, training=smaller.model_dump(mode="json"), identity=identity)
        text = f"{failure.reason}: tried again with batch size {smaller.batch_size}"
        return replace(queued_again(changed, AttemptOutcome.FAILED, failure.reason), smaller_batch=text)

    def _smaller(self, row: TrialRow) -> TrainingSettings | None:
        """Return a trial's training settings with half the batch size; None if that was tried already.

        The learning rate halves with it: the linear scaling rule (Goyal et al. 2017, section 2.1).
        """
        now = TrainingSettings.model_validate(row.training)
        if row.number in self._state.tried_smaller or now.batch_size < 4:  # batch norm needs two images
            return None
        return now.model_copy(update={"batch_size": now.batch_size // 2, "learning_rate": now.learning_rate / 2})


def _cut_before_losses(events: Sequence[RecordedEvent]) -> Iterator[list[RecordedEvent]]:
    """Yield the events in batches; a loss begins one, because its decision depends on the epochs recorded before."""
    batch: list[RecordedEvent] = []
    for event in events:
        if isinstance(event, Lost) and batch:
            yield batch
            batch = []
        batch.append(event)
    if batch:
        yield batch
