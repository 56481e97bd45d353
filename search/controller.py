"""The controller: one process that asks, prices, gates, dispatches and records.

Notable choices:
- Every step is one transaction, written before the next begins, and every step may be repeated: a controller that dies
  at any instruction is followed by one that reads the tables (`_reconcile`) and goes on from there. What follows from a
  step in this process's memory is done once it is written (`Step`), so that the database may go away in the middle.
- Candidates are priced in batches, one batch ahead of the workers, so the anchor is shared and no worker waits for a
  measurement that could have been made before; in a thread, so that a slow device holds up nothing else.
- A worker that dies costs its trial an attempt, not its life: it goes on from its checkpoint with the next.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from search.engines.base import Engine, EngineEvent
from search.gate import Budget, refusal
from search.pareto import non_dominated
from search.pricing import Pricer, Prices, Target
from search.proposer import Proposer
from search.store.reader import LatencyRow, TrialRow
from search.store.store import NewTrial, Wish
from search.study import OpenStudy
from search.view import LaunchView
from space.errors import (
    BudgetUnreachable,
    CondenseryError,
    DataNotFound,
    DiskFull,
    OutOfMemory,
    ReadOnlyFolder,
    SearchFailed,
    UnreadableImage,
)
from workers.checkpoint import remove_checkpoints
from workers.latency.measurement import FailedMeasurement
from workers.latency.probes import measuring_cores
from workers.settings import TrainingSettings
from workers.trial import CHECKPOINTS, NETWORK_FILE, ONNX_FILE, TrialJob, trial_identity

POLL_S = 0.25
PRICING_POLL_S = 0.25  # at most: a batch that is done is taken at once
LOOK_S = 0.25  # between two looks at what users want; as often the controller says that it lives
BEAT_S = 2.0  # between two heartbeats of the running trials
SILENT_S = 120.0  # a worker that the engine knows nothing of for so long is taken for lost
WIND_DOWN_POLLS = 480  # two minutes for every worker to write its checkpoint
# A worker that meets one of these would meet it in every trial: the search stops and the trial stays open.
FATAL = {error.exit_code: error for error in (DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage)}
OF_RESULT = ("top1", "val_loss", "train_seconds", "peak_memory_mb")  # columns of a trial that is done

Ending = Literal["finished", "stopped", "exhausted"]


@dataclass(frozen=True)
class Surroundings:
    """What a controller works with, beside the study."""

    engine: Engine
    targets: tuple[Target, ...]  # the devices; a trial is judged by the first
    view: LaunchView
    files: Path  # of this study
    cache: Path  # where the images are
    stop: threading.Event  # set by Ctrl-C
    data_fingerprint: str = ""  # of the images; see `workers.image_cache.DataInfo`


@dataclass
class Step:
    """Writes that commit together, and what follows in memory once they have."""

    writes: list[Callable[[], Any]] = field(default_factory=list)
    then: list[Callable[[], Any]] = field(default_factory=list)

    def run(self, transact: Callable[[Callable[[], None]], None]) -> None:
        """Write, then let follow what follows."""
        if self.writes:
            transact(self._write)
        for follow in self.then:
            follow()

    def _write(self) -> None:
        for write in self.writes:
            write()


class Controller:
    """Runs one study to its number of trainings; see the module."""

    def __init__(self, study: OpenStudy, around: Surroundings) -> None:
        settings = study.settings
        self.settings, self.store, self.proposer = settings, study.store, Proposer(study)
        self.around, self.engine, self.view = around, around.engine, around.view
        self.budget: Budget = settings.search_budget()
        self.pricer = Pricer(around.targets, around.files)
        self.wanted = settings.study.trainings
        self.batch = settings.search.batch or settings.engine.workers
        self.cores = measuring_cores(settings.latency.core, settings.latency.threads)
        self._unpriced: list[TrialRow] = []
        self._pricing: list[TrialRow] = []  # the batch that is being measured
        self._quiet = ExitStack()  # keeps workers off the measuring processor meanwhile
        self._queue: deque[TrialRow] = deque()
        self._kept: list[TrialRow] = []  # done trials whose networks are there, with retention `front`
        self._running: dict[int, TrialRow] = {}
        self._heard_at: dict[int, float] = {}  # when the engine last knew a running trial's worker to live
        self._results: dict[str, int] = {}  # by identity: the first trial that has, or may get, its result
        self._smallest_macs: int | None = None
        self._smallest_ms: float | None = None
        self._reported: set[int] = set()  # running trials whose attempt has reported an epoch
        self._smaller_tried: set[int] = set()  # trials that ran out of memory once
        self._late: set[tuple[int, int, str]] = set()  # refused news: (number, attempt, kind)
        self._cancelled: set[int] = set()
        self._wishes: list[Wish] = []
        self._asked_to_stop = False
        self._looked_at = self._beaten_at = -1e9
        self._done = self._failures_in_a_row = self._refusals_in_a_row = 0
        self._fatal: CondenseryError | None = None

    def run(self) -> Ending:
        """Search until the trainings are done, the space is used up, or someone stops it.

        Raises:
            BudgetUnreachable: proposal after proposal was refused and nothing was ever trained.
            SearchFailed: the same after some trainings, or one training after another failed.
            DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage: a worker can't go on; nothing recorded is lost.
            StudyBusy: another process has taken the study over.
        """
        try:
            return self._run()
        finally:
            self.pricer.close()
            self._quiet.close()

    def _run(self) -> Ending:
        self._reconcile()
        while True:
            self.view.progress(self._done, self.wanted)
            if self._fatal is not None:
                self._wind_down()
                raise self._fatal
            self._look()
            if self._asked_to_stop or self.around.stop.is_set():
                self._wind_down()
                return "stopped"
            self._beat()
            self._take_prices()
            if not (self._pricing and self.pricer.local):
                self._dispatch()
            self.proposer.flush()
            missing = max(self._missing(), len(self._wishes))
            waiting = any(map(self._needed, self._queue))
            if self._pricing:
                self._take(self.engine.poll(0.0))
                continue
            if missing <= 0 and not self._running and not waiting:
                self._look(now=True)  # before ending: somebody may have wished for something just now
                if self._wishes:
                    continue
                self._drop_unpriced()
                self.proposer.flush(now=True)
                if self._queue:
                    self.view.note(f"{len(self._queue)} priced trials are kept for a larger number of trainings")
                return "finished"
            more = missing > 0 and self._more_to_try()
            if not more and not self._running and not waiting:
                self.proposer.flush(now=True)
                return "exhausted"
            if more and not waiting:
                self._propose(min(self.batch, missing))
                self._take(self.engine.poll(0.0))
            else:
                self._take(self.engine.poll(POLL_S))

    def _missing(self) -> int:
        """How many more candidates the number of trainings needs."""
        return self.wanted - self._done - len(self._running) - len(self._queue)

    # -- life --

    def _look(self, now: bool = False) -> None:
        """Say that the controller lives, and see what users want: a stop, trials cancelled, configs tried."""
        if not now and time.monotonic() - self._looked_at < LOOK_S:
            return

        def look() -> tuple[bool, list[int], list[Wish]]:
            return self.store.heartbeat(), self.store.cancel_wishes(), self.store.waiting_wishes()

        self._asked_to_stop, cancelled, self._wishes = self.store.transact(look)
        self._looked_at = time.monotonic()
        self._obey_cancels(cancelled)

    def _beat(self) -> None:
        """Renew the leases of the trials whose workers live; give up those that nothing is heard of."""
        now = time.monotonic()
        if not self._running or now - self._beaten_at < BEAT_S:
            return
        alive = self.engine.alive()
        self._heard_at |= dict.fromkeys(alive, now)
        self.store.transact(lambda: self.store.beat(alive))
        self._beaten_at = now
        for number, row in list(self._running.items()):
            if now - self._heard_at[number] > SILENT_S:
                self.engine.cancel(number)
                silent = f"nothing was heard of its worker for {SILENT_S:.0f} s"
                self._take([EngineEvent("lost", number, row.attempt, silent)])

    # -- proposing and pricing --

    def _propose(self, count: int) -> None:
        """Ask for candidates until `count` need measuring (or a good many were refused), then price and gate them."""
        candidates, self._unpriced = self._unpriced[:count], self._unpriced[count:]
        wishes = deque(self._wishes)
        for _ in range(50):
            # The count may be that of the wishes alone: what the study has enough of is not asked for.
            sampled = sum(row.origin == "sampled" for row in candidates)
            enough = self.proposer.exhausted or sampled >= self._missing()
            short = count - len(candidates)
            if short <= 0 or self.around.stop.is_set() or (enough and not wishes):
                break
            asked = []
            for _ in range(min(short, max(1, len(wishes), self._missing() - sampled))):
                wish = wishes.popleft() if wishes else None
                asked.append((self.proposer.ask(wish), wish))
            candidates += [row for row in self._record(asked) if not self._refused_unmeasured(row)]
        self._wishes = list(wishes)
        candidates = [row for row in candidates if row.number not in self._cancelled]
        if candidates:
            if self.pricer.local:
                self._quiet.enter_context(self.engine.quiet(self.cores))
            self._pricing = candidates
            self.pricer.start([row.config for row in candidates])
        self._give_up_if_hopeless()

    def _record(self, asked: Sequence[tuple[NewTrial, Wish | None]]) -> list[TrialRow]:
        """Record proposals as `asked`."""
        at = time.time()
        keys = self.store.transact(lambda: [self.store.add_trial(new, wish, at) for new, wish in asked])
        rows = [TrialRow.of_new(new, key, at) for (new, _), key in zip(asked, keys, strict=True)]
        for row in rows:
            self._meet(row)
            self.view.trial(row)
        return rows

    def _meet(self, row: TrialRow) -> None:
        """Count a trial that this controller meets for the first time."""
        self.proposer.count(row)
        if row.state not in ("failed", "cancelled", "duplicate"):
            self._results.setdefault(row.identity, row.number)
        self._smallest_macs = min(row.macs, self._smallest_macs or row.macs)
        if row.latency is not None:
            self._smallest_ms = min(row.latency.interval_high_ms, self._smallest_ms or row.latency.interval_high_ms)

    def _refused_unmeasured(self, row: TrialRow) -> bool:
        """Refuse what needs no measurement: a duplicate, or macs or params over the budget."""
        same = self._results.setdefault(row.identity, row.number)
        if same != row.number:
            self.proposer.next_at_random()
            self._close(row, "duplicate", reason=f"same as trial {same}", duplicate_of=same)
        elif why := refusal(self.budget, row.macs, row.params, None):
            self._close(row, "infeasible", reason=why)
        else:
            return False
        self._refusals_in_a_row += 1
        return True

    def _take_prices(self) -> None:
        """When the batch under way is measured: record it, then let each candidate through or refuse it."""
        prices = self.pricer.take(PRICING_POLL_S)
        if prices is None:
            return
        self._quiet.close()
        rows, self._pricing = self._pricing, []
        step = Step()
        for row, found in zip(rows, prices, strict=True):
            if row.number not in self._cancelled:
                self._gate(step, row, found)
        step.run(self.store.transact)
        self._give_up_if_hopeless()

    def _gate(self, step: Step, row: TrialRow, prices: Prices) -> None:
        """Plan to record a candidate's prices and what is decided on it."""
        first, at, latencies = self.around.targets[0].name, time.time(), []
        for target, found in prices.items():
            if isinstance(found, FailedMeasurement):
                place = "" if target == first else f" on {target}"
                self._plan_failure(step, row, f"latency{place} could not be measured: {found.reason}")
                return
            judged = target == first
            step.writes.append(partial(self.store.add_latency, row.number, found, "price", target, judged, at))
            latencies.append(LatencyRow.of_measurement(found, target))
        others = tuple(sorted((one for one in latencies if one.target != first), key=lambda one: one.target))
        judging = next((one for one in latencies if one.target == first), None)
        priced = replace(row, latency=judging, others=others)
        if judging is not None:
            self._smallest_ms = min(judging.interval_high_ms, self._smallest_ms or judging.interval_high_ms)
        why = refusal(self.budget, row.macs, row.params, judging, others)
        if why is not None:
            self._refusals_in_a_row += 1
            self._plan_close(step, priced, "infeasible", reason=why)
            return
        self._refusals_in_a_row = 0
        queued = replace(priced, state="queued")
        step.writes.append(partial(self.store.set_queued, row.number))
        step.then += [partial(self.proposer.constrain, queued), partial(self._enqueue, queued)]

    def _enqueue(self, row: TrialRow) -> None:
        if row.origin == "enqueued":
            self._queue.appendleft(row)  # somebody asked for it
        else:
            self._queue.append(row)
        self.view.trial(row)

    def _more_to_try(self) -> bool:
        """Whether anything can still be proposed: the space isn't used up, or an earlier proposal or a wish waits."""
        return not self.proposer.exhausted or bool(self._unpriced) or bool(self._wishes)

    def _drop_unpriced(self) -> None:
        """Close what an earlier controller asked for and this study doesn't need any more."""
        for row in self._unpriced:
            self._close(row, "cancelled", reason="the study had its trainings before this was priced")
        self._unpriced = []

    def _give_up_if_hopeless(self) -> None:
        busy = self._running or self._queue or self._pricing
        if self._refusals_in_a_row < self.settings.search.give_up_after or busy:
            return
        self.proposer.flush(now=True)
        reached = [f"smallest macs seen {self._smallest_macs:,}"]
        if self._smallest_ms is not None:
            reached.append(f"smallest latency seen {self._smallest_ms:.4g} ms")
        text = (
            f"{self._refusals_in_a_row} proposals in a row were refused or repeated (budget {self.budget}; "
            f"{', '.join(reached)}); widen the space or the budget."
        )
        raise SearchFailed(text) if self._done else BudgetUnreachable(text)

    # -- running --

    def _dispatch(self) -> None:
        """Start as many queued trials as there are free workers."""
        chosen: list[TrialRow] = []
        free = self.engine.free_slots()
        for row in self._queue:
            if len(chosen) < free and self._needed(row, ahead=len(chosen)) and row.number not in self._cancelled:
                chosen.append(replace(row, state="running", attempt=row.attempt + 1))
        if not chosen:
            return

        def start() -> None:
            for row in chosen:
                self.store.set_running(row.number, row.attempt)

        self.store.transact(start)
        started = {row.number for row in chosen}
        self._queue = deque(row for row in self._queue if row.number not in started | self._cancelled)
        for row in chosen:
            self._running[row.number] = row
            self._heard_at[row.number] = time.monotonic()
            self._reported.discard(row.number)
            self.engine.submit(self._job(row))
            self.view.trial(row)

    def _job(self, row: TrialRow) -> TrialJob:
        limits = self.settings.limits
        return TrialJob(
            study=self.settings.study.name,
            number=row.number,
            attempt=row.attempt,
            config=row.config,
            training=TrainingSettings.model_validate(row.training),
            data=self.settings.data,
            seed=row.seed,
            folder=str(self.trial_folder(row.number)),
            cache=str(self.around.cache),
            device=self.settings.engine.device,
            time_limit_s=limits.trial_time_s,
            checkpoint_every_s=limits.checkpoint_every_s,
            data_fingerprint=self.around.data_fingerprint,
        )

    def _needed(self, row: TrialRow, ahead: int = 0) -> bool:
        """Whether a queued trial is to run: a study resumed with fewer trainings may have more open than it wants."""
        return row.origin == "enqueued" or self._done + len(self._running) + ahead < self.wanted

    def trial_folder(self, number: int) -> Path:
        """Where a trial's files are."""
        return folder_of_trial(self.around.files, number)

    def _take(self, events: Sequence[EngineEvent]) -> None:
        """Record the news of the workers: in one transaction, then in memory."""
        step = Step()
        for event in events:
            row = self._running.get(event.number)
            if row is None or row.attempt != event.attempt:
                self._refuse_late(step, event)
            elif event.kind == "started":
                step.writes.append(partial(self.store.set_worker, event.number, event.attempt, event.payload))
            elif event.kind == "curve":
                self._heard_at[event.number] = time.monotonic()
                self._reported.add(event.number)
                step.writes.append(partial(self.store.add_curve_row, event.number, event.payload, event.attempt))
                step.then.append(partial(self.view.curve, event.number, event.payload))
            else:
                self._plan_ending(step, row, event)
        step.run(self.store.transact)

    def _refuse_late(self, step: Step, event: EngineEvent) -> None:
        """Record, once of each kind, what comes of an attempt that was given up; it changes nothing else."""
        seen = (event.number, event.attempt, event.kind)
        if event.kind != "started" and seen not in self._late:
            self._late.add(seen)
            text = f"{event.kind} of an attempt that had been given up: refused"
            step.writes.append(partial(self.store.note_event, "late", text, event.number, event.attempt))

    def _plan_ending(self, step: Step, row: TrialRow, event: EngineEvent) -> None:
        del self._running[row.number]
        self._heard_at.pop(row.number, None)
        if event.kind == "done":
            self._plan_result(step, row, event.payload)
        elif event.kind == "stopped":
            self._plan_again(step, row, "stopped", None)
        elif event.kind == "lost":
            self._plan_loss(step, row, event.payload)
        else:
            self._plan_failed_attempt(step, row, *event.payload)

    def _plan_result(self, step: Step, row: TrialRow, result: dict[str, Any]) -> None:
        folder = self.trial_folder(row.number).absolute()
        files = {NETWORK_FILE: result["network_sha256"], ONNX_FILE: result["onnx_sha256"]}
        paths = {name: (str(folder / name), str(sha)) for name, sha in files.items()}
        step.writes.append(partial(self.store.add_artifacts, row.number, paths))
        self._done += 1
        self._failures_in_a_row = 0
        self._plan_close(step, row, "done", None, **{name: result[name] for name in OF_RESULT})
        if self.settings.retention.networks == "front":
            step.then.append(partial(self._remove_dominated, replace(row, top1=float(result["top1"]))))

    def _plan_again(self, step: Step, row: TrialRow, outcome: str, reason: str | None) -> None:
        """The attempt is over and the trial waits for the next one, from its checkpoint."""
        step.writes.append(partial(self.store.end_attempt, row.number, row.attempt, outcome, reason))
        step.writes.append(partial(self.store.set_queued, row.number))
        queued = replace(row, state="queued")
        step.then += [partial(self._queue.appendleft, queued), partial(self.view.trial, queued)]

    def _plan_loss(self, step: Step, row: TrialRow, reason: str) -> None:
        """A worker died: its trial goes on with another, unless that has happened to it too often."""
        if row.number in self._cancelled:
            self._plan_close(step, row, "cancelled", reason="cancelled by the user")
            return
        most = self.settings.limits.lost_attempts
        before = partial(self.store.losses_in_a_row, row.number, row.attempt)
        lost = 0 if row.number in self._reported else 1 + self.store.transact(before)
        if lost >= most:
            self._plan_failure(step, row, f"{lost} attempts in a row were lost, the last because {reason}", "lost")
            return
        self.view.note(f"trial {row.number}: {reason}; it goes on from its checkpoint")
        step.writes.append(partial(self.store.note_event, "lost", reason, row.number, row.attempt))
        self._plan_again(step, row, "lost", reason)

    def _plan_failed_attempt(self, step: Step, row: TrialRow, reason: str, exit_code: int) -> None:
        """A training failed: record why, or, when every trial would meet the same, leave it open and stop."""
        if row.number in self._cancelled:
            self._plan_close(step, row, "cancelled", reason="cancelled by the user")
        elif exit_code in FATAL:
            self._plan_again(step, row, "failed", reason)
            self._fatal = FATAL[exit_code](reason)
        elif exit_code == OutOfMemory.exit_code and (smaller := self._smaller(row)) is not None:
            self._plan_smaller(step, row, smaller, reason)
        else:
            self._plan_failure(step, row, reason)

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
        identity = trial_identity(row.config, smaller, self.settings.data, row.seed)
        text = f"{reason}: tried again with batch size {smaller.batch_size}"
        self._smaller_tried.add(row.number)
        self._results.setdefault(identity, row.number)
        self.view.note(f"trial {row.number}: {text}")
        step.writes += [
            partial(self.store.note_event, "smaller batch", text, row.number, row.attempt),
            partial(self.store.retry_smaller, row.number, training, identity),
        ]
        self._plan_again(step, replace(row, training=training, identity=identity), "failed", reason)

    def _plan_failure(self, step: Step, row: TrialRow, reason: str, outcome: str = "failed") -> None:
        self._plan_close(step, row, "failed", outcome, reason=reason)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self.settings.limits.failures_in_a_row:
            self._fatal = SearchFailed(f"{self._failures_in_a_row} trials in a row failed, the last because: {reason}")

    def _remove_dominated(self, new: TrialRow) -> None:
        """Retention `front`: networks that no budget could pick any more go; their figures and logs stay."""
        self._kept.append(new)
        pickable = non_dominated(np.array([_pick_objectives(row) for row in self._kept]))
        for row, stays in zip(self._kept, pickable, strict=True):
            if not stays:
                for name in (NETWORK_FILE, ONNX_FILE):
                    (self.trial_folder(row.number) / name).unlink(missing_ok=True)
                self.store.mark_removed(row.number)
        self._kept = [row for row, stays in zip(self._kept, pickable, strict=True) if stays]

    # -- endings --

    def _close(self, row: TrialRow, state: str, **values: Any) -> None:
        """Record a final state, then tell Optuna."""
        step = Step()
        self._plan_close(step, row, state, **values)
        step.run(self.store.transact)

    def _plan_close(self, step: Step, row: TrialRow, state: str, outcome: str | None = None, **values: Any) -> None:
        """Plan to record a trial's final state, and its attempt's (`outcome`; None: of the same name)."""
        at = time.time()
        closed = replace(row, state=state, finished_at=at, **values)
        if row.attempt:
            ending = (row.number, row.attempt, outcome or state, values.get("reason"))
            step.writes.append(partial(self.store.end_attempt, *ending))
        step.writes.append(partial(self.store.finish, row.number, state, finished_at=at, **values))
        if state in ("failed", "cancelled", "duplicate") and self._results.get(row.identity) == row.number:
            del self._results[row.identity]  # it may be tried again
        step.then += [
            partial(self._clean, row.number),
            partial(self.proposer.tell, closed),
            partial(self.view.trial, closed),
        ]

    def _clean(self, number: int) -> None:
        """Remove the checkpoints of a trial whose end is recorded, unless they are to be kept."""
        if self.settings.retention.checkpoints == "none":
            remove_checkpoints(self.trial_folder(number) / CHECKPOINTS)

    def _obey_cancels(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if number in self._cancelled:
                continue
            self._cancelled.add(number)
            if number in self._running:
                self.engine.cancel(number)
            else:
                self._close(self.store.trial(number), "cancelled", reason="cancelled by the user")

    def _wind_down(self) -> None:
        """Let every worker write its checkpoint; what can't in time is resumed from an earlier one."""
        self.pricer.stop()  # its candidates stay `asked`: they are priced when the study goes on
        self._pricing = []
        self._quiet.close()
        if self._running:
            self.view.note(f"stopping: {len(self._running)} running trials write their checkpoints …")
            self.engine.stop()
            for _ in range(WIND_DOWN_POLLS):
                self._take(self.engine.poll(POLL_S))
                if not self._running:
                    break
                self._look()  # the lease must not run out meanwhile
        self.proposer.flush(now=True)

    def _reconcile(self) -> None:
        """Read the tables and put everything an earlier controller left open back in its place."""
        rows = self.store.trials()
        self.proposer.drop_open_trials()
        self.proposer.replay(rows)
        for row in rows:
            self._meet(row)
        step = Step()
        for row in rows:
            if row.state == "done":
                self._done += 1
                if self.settings.retention.networks == "front":
                    self._kept.append(row)
            if row.state == "asked":
                if not self._refused_unmeasured(row):
                    self._unpriced.append(row)
            elif row.state in ("queued", "running"):
                step.writes.append(partial(self.store.set_queued, row.number))
                self._queue.append(replace(row, state="queued"))
            elif not row.told:
                self._clean(row.number)
        self._smaller_tried = self.store.numbers_of_event("smaller batch")
        step.run(self.store.transact)
        self.proposer.flush(now=True)
        left_open = len(self._unpriced) + len(self._queue)
        if rows:
            self.view.note(f"resuming: {self._done} trainings done, {left_open} trials to go on with")
        for row in rows[-20:]:
            self.view.trial(row)


def folder_of_trial(files: Path, number: int) -> Path:
    """Where a trial's files are, in its study's folder."""
    return files / f"trial-{number:05d}"


def _pick_objectives(row: TrialRow) -> tuple[float, ...]:
    """What `search.pick` may limit or compare, all minimised: one that another beats in all of them is never picked."""
    latencies = [value for one in row.latencies.values() for value in (one.interval_high_ms, one.median_ms)]
    return (-(row.top1 or 0.0), *latencies, float(row.macs), float(row.params))
