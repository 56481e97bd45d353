"""Recording: decisions go into the store in one transaction, and only then into memory. Only this module does either.

If the database goes away in the middle, memory hasn't changed; if the process dies between the two, the next one reads
the store. Writing a decision again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search.engines.events import report_of
from search.loop.callbacks import LaunchCallback
from search.loop.files import TrialFiles
from search.loop.mirror import OptunaMirror
from search.loop.outcomes import (
    CurveRestored,
    Decision,
    Dispatched,
    Ended,
    EpochReported,
    LateNews,
    Queued,
    Reopened,
    Requeued,
    WorkerKnown,
)
from search.loop.state import RunningTrial, SearchState
from search.samplers.proposer import Proposer
from search.samplers.stopping import expected_score, score_of_epoch
from search.store.rows import BeliefRow, EnqueuedConfig, NewTrial, TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import (
    MAY_BE_TRIED_AGAIN,
    AttemptOutcome,
    EvaluatedSplit,
    StudyEvent,
    TrialState,
)
from space.errors import SearchFailed
from workers.clock import Clock
from workers.file_names import ONNX_FILE
from workers.latency.measurement import Measurement
from workers.metrics import METRICS

_OUTCOME = (*"reason duplicate_of expected_score val_loss train_seconds peak_memory_mb finished_at".split(), *METRICS)


@dataclass
class Recorder:
    """Writes decisions into the store, then applies them to memory."""

    state: SearchState
    store: StudyStore
    proposer: Proposer
    mirror: OptunaMirror
    files: TrialFiles
    callback: LaunchCallback
    clock: Clock
    forget: Callable[[int], None]  # removes what the engine keeps of a trial outside its folder

    def record(self, decisions: Sequence[Decision]) -> None:
        """Write the decisions in one transaction, then apply them in the order given.

        Raises:
            StudyBusy: another process has taken the study over. Nothing has changed in memory, and what a
                database driver raises once patience has run out leaves memory as it was too.
        """
        if not decisions:
            return

        def write() -> None:
            for decision in decisions:
                self._write(decision)

        self.store.transact(write)
        for decision in decisions:
            self._apply(decision)

    def record_asked(self, asked: Sequence[tuple[NewTrial, EnqueuedConfig | None]]) -> list[TrialRow]:
        """Write proposals, each with the enqueued config that it tries (None: sampled); return their rows."""
        at, store = self.clock.now(), self.store
        keys = store.transact(lambda: [store.add_trial(new, enqueued, at) for new, enqueued in asked])
        objective = self.state.settings.study.objective
        rows = [TrialRow.of_new(new, key, at, objective) for (new, _), key in zip(asked, keys, strict=True)]
        for row in rows:
            self.state.add(row)
            self.proposer.count(row)
            self.callback.trial(row)
        return rows

    def record_belief(self, belief: BeliefRow | None) -> None:
        """Write what the sampler believes, in place of what it believed before; None is nothing new."""
        if belief is not None:
            self.store.transact(lambda: self.store.set_belief(belief))

    # -- into the store --

    def _write(self, decision: Decision) -> None:
        """Write one decision; writing it again changes nothing."""
        store = self.store
        match decision:
            case Queued(row, prices):
                self._write_prices(row, prices)
                store.set_queued(row.number)
            case Reopened(row):
                store.set_queued(row.number)
            case Dispatched(row):
                store.set_running(row.number, row.attempt)
            case WorkerKnown(row, worker):
                store.set_worker(row.number, row.attempt, worker)
            case CurveRestored(row, epochs):
                store.fill_curve(row.number, epochs)
            case EpochReported(row, epoch):
                store.add_curve_row(row.number, epoch, row.attempt)
            case LateNews(number, attempt, news):
                store.note_event(
                    StudyEvent.LATE, f"{news} of an attempt that had been given up: refused", number, attempt
                )
            case Requeued():
                self._write_requeued(decision)
            case Ended():
                self._write_ended(decision)

    def _write_prices(self, row: TrialRow, prices: Sequence[Measurement]) -> None:
        for price in prices:
            judged = row.latency is not None and price.target == row.latency.target
            self.store.add_latency(row.number, price, judged)

    def _write_requeued(self, decision: Requeued) -> None:
        row, store = decision.row, self.store
        if decision.outcome == AttemptOutcome.LOST:
            store.note_event(StudyEvent.LOST, decision.reason or "", row.number, row.attempt)
        if decision.smaller_batch is not None:
            store.note_event(StudyEvent.SMALLER_BATCH, decision.smaller_batch, row.number, row.attempt)
            store.retry_smaller(row.number, row.training, row.identity)
        store.end_attempt(row.number, row.attempt, decision.outcome, decision.reason)
        store.set_queued(row.number)

    def _write_ended(self, decision: Ended) -> None:
        row, store = decision.row, self.store
        self._write_prices(row, decision.prices)
        if decision.files:
            store.add_artifacts(row.number, decision.files)
        if decision.predictions is not None:
            store.add_predictions(row.number, EvaluatedSplit.VALIDATION, decision.predictions)
        if decision.fp32_predictions is not None:
            _, sha256 = decision.files[ONNX_FILE]
            store.add_file_predictions(row.number, sha256, "fp32", EvaluatedSplit.VALIDATION, decision.fp32_predictions)
        if decision.outcome is not None:
            store.end_attempt(row.number, row.attempt, decision.outcome, row.reason)
        store.finish(row.number, row.state, **{name: getattr(row, name) for name in _OUTCOME})

    # -- into memory --

    def _apply(self, decision: Decision) -> None:
        state = self.state
        match decision:
            case Queued(row):
                state.add_latency(row)
                self.proposer.constrain(row)
                self._queue(row, first=row.is_promised)
            case Reopened(row):
                state.queue.append(row)
            case Dispatched(row):
                state.remove_from_queue(row.number)
                state.running[row.number] = RunningTrial(row, self.clock.monotonic())
                self.callback.trial(row)
            case CurveRestored(row, epochs):
                state.rule.observe(row, epochs)
                if epochs:
                    state.running[row.number].report = report_of(epochs[-1])
                    self.callback.curve(row.number, epochs[-1])
            case EpochReported(row, epoch):
                running = state.running[row.number]
                running.heard_at, running.report = self.clock.monotonic(), None  # the store has a newer one
                state.rule.observe(row, [epoch])
                if running.pruned_because is None and (why := state.rule.verdict(row)) is not None:
                    running.pruned_because = why
                    running.expected_score = expected_score(state.rule, row, score_of_epoch(epoch, row.objective))
                self.callback.curve(row.number, epoch)
            case LateNews():
                state.late_news.add(decision)
            case Requeued():
                self._apply_requeued(decision)
            case Ended(row):
                self._apply_ended(row)

    def _queue(self, row: TrialRow, first: bool) -> None:
        if first:
            self.state.queue.appendleft(row)
        else:
            self.state.queue.append(row)
        self.callback.trial(row)

    def _apply_requeued(self, decision: Requeued) -> None:
        state, row = self.state, decision.row
        state.running.pop(row.number, None)
        state.fatal = decision.fatal or state.fatal
        if decision.outcome == AttemptOutcome.LOST:
            self.callback.note(f"trial {row.number}: {decision.reason}; it goes on from its checkpoint")
        if decision.smaller_batch is not None:
            state.tried_smaller.add(row.number)
            state.rule.forget(row.number)
            state.claim_identity(row)
            self.callback.note(f"trial {row.number}: {decision.smaller_batch}")
        self._queue(row, first=True)

    def _apply_ended(self, row: TrialRow) -> None:
        state = self.state
        state.running.pop(row.number, None)
        state.remove_from_queue(row.number)
        state.add_latency(row)
        state.rule.finish(row)
        if row.state in MAY_BE_TRIED_AGAIN:
            state.give_up_identity(row)
        if row.state in (TrialState.DONE, TrialState.PRUNED):
            state.count_ended(row)
            state.failures_in_a_row = 0
        if row.state == TrialState.PRUNED:
            state.ended_early[row.number] = row
        if row.state == TrialState.FAILED:
            self._count_failure(row)
        self.clean(row)
        self.proposer.tell(row)
        self.mirror.add(row)
        self.callback.trial(row)
        if row.state == TrialState.DONE:
            self.files.add_done(row)
            self.remove_dominated()

    def clean(self, row: TrialRow) -> None:
        """Remove the files that a trial no longer needs once its end is recorded, here and in the engine.

        One that may be taken up again needs its checkpoints; one that was taken up needs them no more.
        """
        waits = row.number in self.state.ended_early and self.state.rule.takes_up
        self.files.clean(row.number, checkpoints=not waits)
        if row.continues is not None:
            self.files.clean(row.continues)
        if row.attempt:
            self.forget(row.number)

    def clean_ended_early(self) -> None:
        """Remove the checkpoints of the trials that were ended early: the search has ended, and none goes on."""
        for number in self.state.ended_early:
            self.files.clean(number)

    def _count_failure(self, row: TrialRow) -> None:
        """Count a failure; too many in a row end the search, since the cause then lies outside the trials."""
        state = self.state
        state.failures_in_a_row += 1
        if state.failures_in_a_row >= state.settings.limits.failures_in_a_row:
            text = f"{state.failures_in_a_row} trials in a row failed, the last because: {row.reason}"
            state.fatal = SearchFailed(text)

    def remove_dominated(self) -> None:
        """Remove the networks that the retention rules no longer keep, each recorded first."""
        self.files.remove_dominated(self._mark_removed)

    def _mark_removed(self, number: int) -> None:
        self.store.transact(lambda: self.store.mark_removed(number))
