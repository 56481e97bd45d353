"""The controller: one process that asks, prices, gates, dispatches and records.

Every step is one transaction, written before the next begins, and every step may be repeated: a controller that dies at
any instruction is followed by one that reads the tables (`_reconcile`) and goes on from there. What follows from a step
in this process's memory is done once it is written (`ledger.Step`), so that the database may go away in the middle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from search.engines.base import Engine
from search.loop.callbacks import LaunchCallback
from search.loop.candidates import Candidates
from search.loop.state import SearchState, Step
from search.loop.trainings import Trainings
from search.pricing.pricer import Target
from search.store.rows import EnqueuedConfig
from search.store.vocabulary import TrialState
from search.study import OpenStudy

POLL_S = 0.25
LOOK_S = 0.25  # between two looks at what users want; as often the controller says that it lives
WIND_DOWN_POLLS = 480  # two minutes for every worker to write its checkpoint

Ending = Literal["finished", "stopped", "exhausted"]


@dataclass(frozen=True)
class Surroundings:
    """What a controller works with, beside the study."""

    engine: Engine
    targets: tuple[Target, ...]  # the devices; a trial is judged by the first
    view: LaunchCallback
    files: Path  # of this study
    cache: Path  # where the images are
    stop: threading.Event  # set by Ctrl-C
    data_fingerprint: str = ""  # of the images; see `workers.images.data_info.DataInfo`


class Controller:
    """Runs one study to its number of trainings; see the module."""

    def __init__(self, study: OpenStudy, around: Surroundings) -> None:
        self.ledger = SearchState(study, around.view, around.files)
        self.store, self.proposer = self.ledger.store, self.ledger.proposer
        self.engine, self.view = around.engine, around.view
        self.ledger.forget = partial(self.engine.forget, study.settings.study.name)
        self.candidates = Candidates(self.ledger, around.targets, around.engine, around.stop)
        self.runs = Trainings(self.ledger, around.engine, around.cache, around.data_fingerprint)
        self.batch = study.settings.search.batch or study.settings.engine.workers
        self._interrupted = around.stop
        self._asked_to_stop = False
        self._looked_at = -1e9

    def run(self) -> Ending:
        """Search until the trainings are done, the space is used up, or someone stops it.

        Raises:
            BudgetUnreachable: proposal after proposal was refused and nothing was ever trained.
            SearchFailed: the same after some trainings, or one training after another failed.
            DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage: a worker can't go on; nothing recorded is lost.
            StudyBusy: another process has taken the study over.
        """
        try:
            ending = self._run()
            self.proposer.flush(now=True)
            return ending
        finally:
            self.candidates.close()

    def _run(self) -> Ending:
        ledger, candidates, runs = self.ledger, self.candidates, self.runs
        self._reconcile()
        while True:
            self.view.progress(ledger.done, ledger.wanted)
            if ledger.fatal is not None:
                self._wind_down()
                raise ledger.fatal
            self._look()
            if self._asked_to_stop or self._interrupted.is_set():
                self._wind_down()
                return "stopped"
            runs.beat()
            candidates.take_prices()
            if not candidates.holding_up:
                runs.dispatch()
            self.proposer.flush()
            missing = max(ledger.missing, len(candidates.wishes))
            waiting = any(map(ledger.needs, ledger.queue))
            if candidates.pricing:
                runs.take(self.engine.poll(0.0))
                continue
            if missing <= 0 and not ledger.running and not waiting:
                self._look(now=True)  # before ending: somebody may have wished for something just now
                if candidates.wishes:
                    continue
                candidates.drop_unpriced()
                if ledger.queue:
                    self.view.note(f"{len(ledger.queue)} priced trials are kept for a larger number of trainings")
                return "finished"
            more = missing > 0 and candidates.more_to_try()
            if not more and not ledger.running and not waiting:
                return "exhausted"
            if more and not waiting:
                candidates.propose(min(self.batch, missing))
                runs.take(self.engine.poll(0.0))
            else:
                runs.take(self.engine.poll(POLL_S))

    def _look(self, now: bool = False) -> None:
        """Say that the controller lives, and see what users want: a stop, trials cancelled, configs tried."""
        if not now and time.monotonic() - self._looked_at < LOOK_S:
            return

        def look() -> tuple[bool, list[int], list[EnqueuedConfig]]:
            return self.store.heartbeat(), self.store.cancel_requests(), self.store.pending_requests()

        self._asked_to_stop, cancelled, self.candidates.wishes = self.store.transact(look)
        self._looked_at = time.monotonic()
        self._obey_cancels(cancelled)

    def _obey_cancels(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if number in self.ledger.cancelled:
                continue
            self.ledger.cancelled.add(number)
            if number in self.ledger.running:
                self.engine.cancel(number)
            else:
                self.ledger.close(self.store.trial(number), "cancelled", reason="cancelled by the user")

    def _wind_down(self) -> None:
        """Let every worker write its checkpoint; what can't in time is resumed from an earlier one."""
        self.candidates.stop()
        if self.ledger.running:
            self.view.note(f"stopping: {len(self.ledger.running)} running trials write their checkpoints …")
            self.engine.stop()
            for _ in range(WIND_DOWN_POLLS):
                self.runs.take(self.engine.poll(POLL_S))
                if not self.ledger.running:
                    break
                self._look()  # the lease must not run out meanwhile
        self.proposer.flush(now=True)

    def _reconcile(self) -> None:
        """Read the tables and put everything an earlier controller left open back in its place."""
        ledger, unpriced = self.ledger, self.candidates.unpriced
        rows = self.store.trials()
        self.proposer.drop_open_trials()
        self.proposer.replay(rows)
        for row in rows:
            ledger.meet(row)
        self.runs.read_rungs(rows)
        step = Step()
        for row in rows:
            if row.state == "done":
                ledger.keep(row)
            if row.state == "pruned":
                ledger.done += 1
            if row.state == "asked":
                if not self.candidates.refused_unmeasured(row):
                    unpriced.append(row)
            elif row.state in ("queued", "running"):
                step.writes.append(partial(self.store.set_queued, row.number))
                ledger.queue.append(replace(row, state=TrialState.QUEUED))
            elif not row.mirrored:
                ledger.clean(row)
        step.run(self.store.transact)
        self.proposer.flush(now=True)
        if rows:
            left_open = len(unpriced) + len(ledger.queue)
            self.view.note(f"resuming: {ledger.done} trainings done, {left_open} trials to go on with")
        for row in rows[-20:]:
            self.view.trial(row)
