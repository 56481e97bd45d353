"""Trainings: queued trials handed to workers, their news recorded, their attempts brought to an end.

A worker that dies costs its trial an attempt, not its life: it goes on from its checkpoint with the next. News of an
attempt that was given up are refused, and recorded as such.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from search.engines.base import Engine, EngineEvent
from search.loop.state import SearchState, Step
from search.samplers.stopping import RUNGS, StoppingRule
from search.store.rows import TrialRow
from search.store.vocabulary import AttemptOutcome, TrialState
from space.errors import DataNotFound, DiskFull, OutOfMemory, ReadOnlyFolder, TrainingFailed, UnreadableImage
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.settings import TrainingSettings
from workers.training.job import TrialJob, trial_identity

BEAT_S = 2.0  # between two heartbeats of the running trials
SILENT_S = 120.0  # a worker that the engine knows nothing of for so long is taken for lost
# A worker that meets one of these would meet it in every trial: the search stops and the trial stays open.
FATAL = {error.exit_code: error for error in (DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage)}
OF_RESULT = ("top1", "val_loss", "train_seconds", "peak_memory_mb")  # columns of a trial that is done


class Trainings:
    """What runs, and what comes of it."""

    def __init__(self, ledger: SearchState, engine: Engine, cache: Path, fingerprint: str) -> None:
        """Take where the images are, and what they hash to ("" trusts what is there)."""
        self.ledger, self._engine = ledger, engine
        self._cache, self._fingerprint = cache, fingerprint
        self._heard_at: dict[int, float] = {}  # when the engine last knew a running trial's worker to live
        self._reported: set[int] = set()  # running trials whose attempt has reported a new epoch
        self._smaller_tried = ledger.store.transact(lambda: ledger.store.numbers_of_event("smaller batch"))
        self._late: set[tuple[int, int, str]] = set()  # refused news: (number, attempt, kind)
        search, minimised = ledger.settings.search, ledger.settings.latency.minimised
        self._rule = StoppingRule(minimised, search.stopping == "rungs")
        self._pruned: dict[int, str] = {}  # running trials that were told to end, and why
        self._beaten_at = -1e9

    def read_rungs(self, rows: Sequence[TrialRow]) -> None:
        """Let the stopping rule know what is recorded of the study; once, at the start."""
        if self._rule.enabled:
            store = self.ledger.store
            self._rule.replay(rows, store.transact(lambda: store.top1_at(RUNGS)))

    def beat(self) -> None:
        """Renew the leases of the trials whose workers live; give up those that nothing is heard of."""
        now = time.monotonic()
        if not self.ledger.running or now - self._beaten_at < BEAT_S:
            return
        alive = self._engine.alive()
        self._heard_at |= dict.fromkeys(alive, now)
        self.ledger.store.transact(lambda: self.ledger.store.renew_attempts(alive))
        self._beaten_at = now
        for number, row in list(self.ledger.running.items()):
            if now - self._heard_at[number] > SILENT_S:
                self._engine.cancel(number)
                silent = f"nothing was heard of its worker for {SILENT_S:.0f} s"
                self.take([EngineEvent("lost", number, row.attempt, silent)])

    def dispatch(self) -> None:
        """Start as many queued trials as there are free workers."""
        chosen: list[TrialRow] = []
        free = self._engine.free_slots()
        for row in self.ledger.queue:
            if (
                len(chosen) < free
                and self.ledger.needs(row, ahead=len(chosen))
                and row.number not in self.ledger.cancelled
            ):
                chosen.append(replace(row, state=TrialState.RUNNING, attempt=row.attempt + 1))
        if not chosen:
            return

        def start() -> None:
            for row in chosen:
                self.ledger.store.set_running(row.number, row.attempt)

        self.ledger.store.transact(start)
        started = {row.number for row in chosen}
        self.ledger.queue = deque(row for row in self.ledger.queue if row.number not in started | self.ledger.cancelled)
        for row in chosen:
            self.ledger.running[row.number] = row
            self._heard_at[row.number] = time.monotonic()
            self._reported.discard(row.number)
            self._engine.submit(self._job(row))
            self.ledger.view.trial(row)

    def _job(self, row: TrialRow) -> TrialJob:
        limits = self.ledger.settings.limits
        return TrialJob(
            study=self.ledger.settings.study.name,
            number=row.number,
            attempt=row.attempt,
            config=row.config,
            training=TrainingSettings.model_validate(row.training),
            data=self.ledger.settings.data,
            seed=row.seed,
            folder=str(self.ledger.trial_folder(row.number)),
            cache=str(self._cache),
            device=self.ledger.settings.engine.device,
            time_limit_s=limits.trial_time_s,
            checkpoint_every_s=limits.checkpoint_every_s,
            data_fingerprint=self._fingerprint,
        )

    def take(self, events: Sequence[EngineEvent]) -> None:
        """Record the news of the workers: in one transaction, then in memory."""
        step = Step()
        for event in events:
            if event.kind == "lost":  # what to make of it depends on the epochs before it
                step.run(self.ledger.store.transact)
                step = Step()
            row = self.ledger.running.get(event.number)
            if row is None or row.attempt != event.attempt:
                self._refuse_late(step, event)
            elif event.kind == "started":
                step.writes.append(partial(self.ledger.store.set_worker, event.number, event.attempt, event.payload))
            elif event.kind == "earlier":
                step.writes.append(partial(self.ledger.store.fill_curve, event.number, event.payload))
                step.then.append(partial(self._rule.take, row, event.payload))
            elif event.kind == "curve":
                self._heard_at[event.number] = time.monotonic()
                step.writes.append(partial(self._add_epoch, event))
                step.then.append(partial(self.ledger.view.curve, event.number, event.payload))
                step.then.append(partial(self._judge, row, event.payload))
            else:
                self._plan_ending(step, row, event)
        step.run(self.ledger.store.transact)

    def _add_epoch(self, event: EngineEvent) -> None:
        """Record an epoch; one that no attempt had reported before is a step forward."""
        if self.ledger.store.add_curve_row(event.number, event.payload, event.attempt):
            self._reported.add(event.number)

    def _judge(self, row: TrialRow, epoch: Mapping[str, Any]) -> None:
        """Let the stopping rule see an epoch; tell the worker to end when it says so."""
        self._rule.take(row, [epoch])
        if row.number in self.ledger.running and row.number not in self._pruned:
            why = self._rule.verdict(row)
            if why is not None:
                self._pruned[row.number] = why
                self._engine.cancel(row.number)

    def _refuse_late(self, step: Step, event: EngineEvent) -> None:
        """Record, once of each kind, what comes of an attempt that was given up; it changes nothing else."""
        seen = (event.number, event.attempt, event.kind)
        if event.kind != "started" and seen not in self._late:
            self._late.add(seen)
            text = f"{event.kind} of an attempt that had been given up: refused"
            step.writes.append(partial(self.ledger.store.note_event, "late", text, event.number, event.attempt))

    def _plan_ending(self, step: Step, row: TrialRow, event: EngineEvent) -> None:
        del self.ledger.running[row.number]
        self._heard_at.pop(row.number, None)
        pruned = self._pruned.pop(row.number, None)
        # Told to end, a worker says that its training failed, or dies first; one that had finished has a result.
        has_ended = event.kind == "lost" or (event.kind == "failed" and event.payload[1] == TrainingFailed.exit_code)
        if pruned is not None and has_ended:
            self._plan_pruned(step, row, pruned)
        elif event.kind == "done":
            self._plan_result(step, row, event.payload)
        elif event.kind == "stopped":
            self._plan_again(step, row, "stopped", None)
        elif event.kind == "lost":
            self._plan_loss(step, row, event.payload)
        else:
            self._plan_failed_attempt(step, row, *event.payload)

    def _plan_result(self, step: Step, row: TrialRow, result: dict[str, Any]) -> None:
        folder = self.ledger.trial_folder(row.number).absolute()
        files = {NETWORK_FILE: result["network_sha256"], ONNX_FILE: result["onnx_sha256"]}
        paths = {name: (str(folder / name), str(sha)) for name, sha in files.items()}
        step.writes.append(partial(self.ledger.store.add_artifacts, row.number, paths))
        self.ledger.done += 1
        self.ledger.failures_in_a_row = 0
        self.ledger.plan_close(step, row, "done", None, **{name: result[name] for name in OF_RESULT})
        if self.ledger.settings.retention.networks == "front":
            step.then.append(partial(self.ledger.remove_dominated, replace(row, top1=float(result["top1"]))))

    def _plan_pruned(self, step: Step, row: TrialRow, reason: str) -> None:
        """A training was ended early: it counts as one of the study's, without a result."""
        if row.number in self.ledger.cancelled:
            self.ledger.plan_close(step, row, "cancelled", reason="cancelled by the user")
            return
        self.ledger.done += 1
        self.ledger.failures_in_a_row = 0
        self.ledger.plan_close(step, row, "pruned", reason=reason)

    def _plan_again(self, step: Step, row: TrialRow, outcome: str, reason: str | None) -> None:
        """The attempt is over and the trial waits for the next one, from its checkpoint."""
        step.writes.append(
            partial(self.ledger.store.end_attempt, row.number, row.attempt, AttemptOutcome(outcome), reason)
        )
        step.writes.append(partial(self.ledger.store.set_queued, row.number))
        queued = replace(row, state=TrialState.QUEUED)
        step.then += [partial(self.ledger.queue.appendleft, queued), partial(self.ledger.view.trial, queued)]

    def _plan_loss(self, step: Step, row: TrialRow, reason: str) -> None:
        """A worker died: its trial goes on with another, unless that has happened to it too often."""
        if row.number in self.ledger.cancelled:
            self.ledger.plan_close(step, row, "cancelled", reason="cancelled by the user")
            return
        most = self.ledger.settings.limits.lost_attempts
        before = partial(self.ledger.store.losses_in_a_row, row.number, row.attempt)
        lost = 0 if row.number in self._reported else 1 + self.ledger.store.transact(before)
        if lost >= most:
            self.ledger.plan_failure(
                step, row, f"{lost} attempts in a row were lost, the last because {reason}", "lost"
            )
            return
        self.ledger.view.note(f"trial {row.number}: {reason}; it goes on from its checkpoint")
        step.writes.append(partial(self.ledger.store.note_event, "lost", reason, row.number, row.attempt))
        self._plan_again(step, row, "lost", reason)

    def _plan_failed_attempt(self, step: Step, row: TrialRow, reason: str, exit_code: int) -> None:
        """A training failed: record why, or, when every trial would meet the same, leave it open and stop."""
        if row.number in self.ledger.cancelled:
            self.ledger.plan_close(step, row, "cancelled", reason="cancelled by the user")
        elif exit_code in FATAL:
            self._plan_again(step, row, "failed", reason)
            self.ledger.fatal = FATAL[exit_code](reason)
        elif exit_code == OutOfMemory.exit_code and (smaller := self._smaller(row)) is not None:
            self._plan_smaller(step, row, smaller, reason)
        else:
            self.ledger.plan_failure(step, row, reason)

    def _smaller(self, row: TrialRow) -> TrainingSettings | None:
        """Return a trial's training settings with half the batch; None once that was tried.

        The learning rate halves with it: the linear scaling rule (Goyal et al. 2017, section 2.1).
        """
        now = TrainingSettings.model_validate(row.training)
        if row.number in self._smaller_tried or now.batch_size < 2:
            return None
        return now.model_copy(update={"batch_size": now.batch_size // 2, "learning_rate": now.learning_rate / 2})

    def _plan_smaller(self, step: Step, row: TrialRow, smaller: TrainingSettings, reason: str) -> None:
        training = smaller.model_dump(mode="json")
        identity = trial_identity(row.config, smaller, self.ledger.settings.data, row.seed)
        text = f"{reason}: tried again with batch size {smaller.batch_size}"
        self._smaller_tried.add(row.number)
        self._rule.forget(row.number)
        self.ledger.results.setdefault(identity, row.number)
        self.ledger.view.note(f"trial {row.number}: {text}")
        step.writes += [
            partial(self.ledger.store.note_event, "smaller batch", text, row.number, row.attempt),
            partial(self.ledger.store.retry_smaller, row.number, training, identity),
        ]
        self._plan_again(step, replace(row, training=training, identity=identity), "failed", reason)
