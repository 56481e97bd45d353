"""The controller: one process that asks, prices, gates, dispatches and records.

Notable choices:
- Every step is written to our tables before the next begins, and every step may be repeated: a controller that dies at
  any instruction is followed by one that reads the tables (`_reconcile`) and goes on from there.
- Candidates are priced in batches, one batch ahead of the workers, so the anchor is shared and no worker waits for a
  measurement that could have been made before; in a thread, so that a slow device holds up nothing else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from search.engines.base import Engine, EngineEvent
from search.gate import Budget, excess, refusal
from search.pareto import non_dominated
from search.pricing import Pricer, Prices, Target
from search.proposer import Proposer
from search.store.reader import TrialRow
from search.store.store import Wish
from search.study import OpenStudy
from search.view import LaunchView
from space.errors import (
    BudgetUnreachable,
    CondenseryError,
    DataNotFound,
    DiskFull,
    ReadOnlyFolder,
    SearchFailed,
    UnreadableImage,
)
from workers.checkpoint import remove_checkpoints
from workers.latency.measurement import FailedMeasurement
from workers.latency.probes import measuring_cores
from workers.settings import TrainingSettings
from workers.trial import CHECKPOINTS, NETWORK_FILE, ONNX_FILE, TrialJob

POLL_S = 0.25
PRICING_POLL_S = 0.25  # at most: a batch that is done is taken at once
WIND_DOWN_POLLS = 480  # two minutes for every worker to write its checkpoint
# A worker that meets one of these would meet it in every trial: the search stops and the trial stays open.
FATAL = {error.exit_code: error for error in (DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage)}

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
        self._cancelled: set[int] = set()
        self._done = self._failures_in_a_row = self._refusals_in_a_row = 0
        self._fatal: CondenseryError | None = None

    def run(self) -> Ending:
        """Search until the trainings are done, the space is used up, or someone stops it.

        Raises:
            BudgetUnreachable: proposal after proposal was refused and nothing was ever trained.
            SearchFailed: the same after some trainings, or one training after another failed.
            DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage: a worker can't go on; nothing recorded is lost.
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
            if self.store.heartbeat() or self.around.stop.is_set():
                self._wind_down()
                return "stopped"
            self._obey_cancels()
            self._take_prices()
            if not (self._pricing and self.pricer.local):
                self._dispatch()
            missing = max(self._missing(), len(self.wishes()))
            waiting = any(map(self._needed, self._queue))
            if self._pricing:
                self._take(self.engine.poll(0.0))
                continue
            if missing <= 0 and not self._running and not waiting:
                self._drop_unpriced()
                if self._queue:
                    self.view.note(f"{len(self._queue)} priced trials are kept for a larger number of trainings")
                return "finished"
            more = missing > 0 and self._more_to_try()
            if not more and not self._running and not waiting:
                return "exhausted"
            if more and not waiting:
                self._propose(min(self.batch, missing))
                self._take(self.engine.poll(0.0))
            else:
                self._take(self.engine.poll(POLL_S))

    def _missing(self) -> int:
        """How many more candidates the number of trainings needs."""
        return self.wanted - self._done - len(self._running) - len(self._queue)

    # -- proposing and pricing --

    def _propose(self, count: int) -> None:
        """Ask for candidates until `count` need measuring (or a good many were refused), then price and gate them."""
        candidates, self._unpriced = self._unpriced[:count], self._unpriced[count:]
        wishes = deque(self.wishes())
        for _ in range(50):
            # The count may be that of the wishes alone: what the study has enough of is not asked for.
            sampled = sum(row.origin == "sampled" for row in candidates)
            enough = self.proposer.exhausted or sampled >= self._missing()
            if len(candidates) >= count or self.around.stop.is_set() or (enough and not wishes):
                break
            row = self.proposer.ask(wishes.popleft() if wishes else None)
            self.view.trial(row)
            if not self._refused_unmeasured(row):
                candidates.append(row)
        candidates = [row for row in candidates if row.number not in self._cancelled]
        if candidates:
            if self.pricer.local:
                self._quiet.enter_context(self.engine.quiet(self.cores))
            self._pricing = candidates
            self.pricer.start([row.config for row in candidates])
        self._give_up_if_hopeless()

    def _refused_unmeasured(self, row: TrialRow) -> bool:
        """Refuse what needs no measurement: a duplicate, or macs or params over the budget."""
        same = self.store.find_same(row.identity, row.number)
        if same is not None:
            self.proposer.next_at_random()
            self._close(row, "duplicate", reason=f"same as trial {same}", duplicate_of=same)
        elif why := refusal(self.budget, row.macs, row.params, None):
            self.proposer.constrain(row, excess(self.budget, row.macs, row.params, None))
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
        for row, found in zip(rows, prices, strict=True):
            if row.number not in self._cancelled:
                self._gate(row, found)
        self._give_up_if_hopeless()

    def _gate(self, row: TrialRow, prices: Prices) -> None:
        """Record a candidate's prices and decide on it."""
        first = self.around.targets[0].name
        for target, found in prices.items():
            if isinstance(found, FailedMeasurement):
                place = "" if target == first else f" on {target}"
                self._fail(row, f"latency{place} could not be measured: {found.reason}")
                return
            self.store.add_latency(row.number, found, "price", target, judged=target == first)
        priced = self.store.trial(row.number)
        cost = (row.macs, row.params, priced.latency, priced.others)
        self.proposer.constrain(priced, excess(self.budget, *cost))
        if why := refusal(self.budget, *cost):
            self._refusals_in_a_row += 1
            self._close(priced, "infeasible", reason=why)
            return
        self._refusals_in_a_row = 0
        self.store.set_queued(row.number)
        queued = self.store.trial(row.number)
        if row.origin == "enqueued":
            self._queue.appendleft(queued)  # somebody asked for it
        else:
            self._queue.append(queued)
        self.view.trial(queued)

    def _more_to_try(self) -> bool:
        """Whether anything can still be proposed: the space isn't used up, or an earlier proposal or a wish waits."""
        return not self.proposer.exhausted or bool(self._unpriced) or bool(self.wishes())

    def wishes(self) -> list[Wish]:
        """Return the enqueued configs that wait; they are tried beside the trainings that the study wants."""
        return self.store.waiting_wishes()

    def _drop_unpriced(self) -> None:
        """Close what an earlier controller asked for and this study doesn't need any more."""
        for row in self._unpriced:
            self._close(row, "cancelled", reason="the study had its trainings before this was priced")
        self._unpriced = []

    def _give_up_if_hopeless(self) -> None:
        busy = self._running or self._queue or self._pricing
        if self._refusals_in_a_row < self.settings.search.give_up_after or busy:
            return
        rows = self.store.trials()
        smallest = min((row.latency.interval_high_ms for row in rows if row.latency), default=None)
        reached = [f"smallest macs seen {min(row.macs for row in rows):,}"]
        if smallest is not None:
            reached.append(f"smallest latency seen {smallest:.4g} ms")
        text = (
            f"{self._refusals_in_a_row} proposals in a row were refused or repeated (budget {self.budget}; "
            f"{', '.join(reached)}); widen the space or the budget."
        )
        raise SearchFailed(text) if self._done else BudgetUnreachable(text)

    # -- running --

    def _dispatch(self) -> None:
        for row in [row for row in self._queue if self._needed(row)]:
            if self.engine.free_slots() == 0 or not self._needed(row):
                break
            self._queue.remove(row)
            if row.number in self._cancelled:
                continue
            attempt = self.store.set_running(row.number)
            limits, engine = self.settings.limits, self.settings.engine
            self._running[row.number] = self.store.trial(row.number)
            self.engine.submit(
                TrialJob(
                    study=self.settings.study.name,
                    number=row.number,
                    attempt=attempt,
                    config=row.config,
                    training=TrainingSettings.model_validate(row.training),
                    data=self.settings.data,
                    seed=row.seed,
                    folder=str(self.trial_folder(row.number)),
                    cache=str(self.around.cache),
                    device=engine.device,
                    time_limit_s=limits.trial_time_s,
                    checkpoint_every_s=limits.checkpoint_every_s,
                    data_fingerprint=self.around.data_fingerprint,
                )
            )
            self.view.trial(self._running[row.number])

    def _needed(self, row: TrialRow) -> bool:
        """Whether a queued trial is to run: a study resumed with fewer trainings may have more open than it wants."""
        return row.origin == "enqueued" or self._done + len(self._running) < self.wanted

    def trial_folder(self, number: int) -> Path:
        """Where a trial's files are."""
        return folder_of_trial(self.around.files, number)

    def _take(self, events: Sequence[EngineEvent]) -> None:
        for event in events:
            row = self._running.get(event.number)
            if row is None or row.attempt != event.attempt:
                continue  # news of an attempt that was given up
            if event.kind == "started":
                continue
            if event.kind == "curve":
                self.store.add_curve_row(event.number, event.payload)
                self.view.curve(event.number, event.payload)
                continue
            del self._running[event.number]
            if event.kind == "done":
                self._finish(row, event.payload)
            elif event.kind == "stopped":
                self.store.set_queued(event.number)
                self.view.trial(self.store.trial(event.number))
            elif event.kind == "lost":
                self._lose(row, event.payload, 75)
            else:
                self._lose(row, *event.payload)

    def _finish(self, row: TrialRow, result: dict[str, float | str]) -> None:
        folder = self.trial_folder(row.number).absolute()
        files = {NETWORK_FILE: result["network_sha256"], ONNX_FILE: result["onnx_sha256"]}
        self.store.add_artifacts(row.number, {name: (str(folder / name), str(sha)) for name, sha in files.items()})
        self._done += 1
        self._failures_in_a_row = 0
        names = ("top1", "val_loss", "train_seconds", "peak_memory_mb")
        self._close(row, "done", **{name: result[name] for name in names})
        if self.settings.retention.networks == "front":
            self._remove_dominated(self.store.trial(row.number))

    def _lose(self, row: TrialRow, reason: str, exit_code: int) -> None:
        """A training failed: record why, or, when every trial would meet the same, leave it open and stop."""
        if row.number in self._cancelled:
            self._close(row, "cancelled", reason="cancelled by the user")
        elif exit_code in FATAL:
            self.store.set_queued(row.number)
            self._fatal = FATAL[exit_code](reason)
        else:
            self._fail(row, reason)

    def _fail(self, row: TrialRow, reason: str) -> None:
        self._close(row, "failed", reason=reason)
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

    def _close(self, row: TrialRow, state: str, **values: object) -> None:
        """Record a final state, then tell Optuna."""
        self.store.finish(row.number, state, **values)
        self._clean(row.number)
        closed = self.store.trial(row.number)
        self.proposer.tell(closed)
        self.view.trial(closed)

    def _clean(self, number: int) -> None:
        """Remove the checkpoints of a trial whose end is recorded, unless they are to be kept."""
        if self.settings.retention.checkpoints == "none":
            remove_checkpoints(self.trial_folder(number) / CHECKPOINTS)

    def _obey_cancels(self) -> None:
        for number in self.store.cancel_wishes():
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
        if not self._running:
            return
        self.view.note(f"stopping: {len(self._running)} running trials write their checkpoints …")
        self.engine.stop()
        for _ in range(WIND_DOWN_POLLS):
            self._take(self.engine.poll(POLL_S))
            if not self._running:
                return

    def _reconcile(self) -> None:
        """Read the tables and put everything an earlier controller left open back in its place."""
        rows = self.store.trials()
        self.proposer.drop_unrecorded({row.number for row in rows})
        for row in rows:
            self.proposer.count(row)
            if row.state == "done":
                self._done += 1
                self._kept.append(row)
            if row.state == "asked":
                if not self._refused_unmeasured(row):
                    self._unpriced.append(row)
            elif row.state in ("queued", "running"):
                self.store.set_queued(row.number)
                self._queue.append(row)
            elif not row.told:
                self._clean(row.number)
                self.proposer.tell(row)
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
