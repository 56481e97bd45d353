"""The controller: one process that asks, prices, gates, dispatches and records.

The way of one candidate, from ask to told:

    Candidates.propose       the sampler, or a user, names a config; it is recorded and priced in a thread
    Candidates.gate_priced   its prices are there: it is queued, or refused
    Trainings.dispatch       a worker is free: it runs
    Trainings.observe        its worker's news: epochs, and at last how the attempt ended
    Recorder.record          what was decided at each of these steps, into the store and then into memory
    OptunaMirror.write       its outcome, in Optuna's tables

Every step is one transaction, written before the next begins, and every step may be repeated: a controller that dies at
any instruction is followed by one that reads the tables (`_reconcile`) and goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from search.engines.base import Engine
from search.loop.callbacks import LaunchCallback
from search.loop.candidates import Candidates
from search.loop.files import TrialFiles
from search.loop.mirror import OptunaMirror
from search.loop.outcomes import Reopened, cancelled
from search.loop.record import Recorder
from search.loop.state import SearchState
from search.loop.times import LoopTimes
from search.loop.trainings import Images, Trainings
from search.pricing.pricer import Target
from search.samplers.proposer import Proposer
from search.store.rows import EnqueuedConfig, TrialRow
from search.store.vocabulary import TrialState
from search.study import OpenStudy
from workers.clock import Clock, SystemClock
from workers.wording import agreeing, counted

NEWEST_SHOWN = 20  # trials that a callback is told of when a study goes on

Ending = Literal["finished", "stopped", "exhausted"]


class Controller:
    """Runs one study to its number of trainings; see the module.

    Args:
        targets: the devices; a trial is judged by the first.
        files: the folder of the study's files.
        images: what workers train on.
        stop: set to end the search cleanly, as by Ctrl-C.
    """

    def __init__(
        self,
        study: OpenStudy,
        engine: Engine,
        targets: Sequence[Target],
        *,
        files: Path,
        images: Images,
        callback: LaunchCallback,
        stop: threading.Event,
        times: LoopTimes = LoopTimes(),  # noqa: B008  frozen
        clock: Clock | None = None,
    ) -> None:
        settings, clock = study.settings, clock or SystemClock()
        self.state, self.store, self.proposer = SearchState(settings), study.store, Proposer(study.settings)
        self.mirror = OptunaMirror(study.store, study.optuna_study_id, self.proposer, clock)
        self.recorder = Recorder(
            state=self.state,
            store=study.store,
            proposer=self.proposer,
            mirror=self.mirror,
            files=TrialFiles(files, settings.retention),
            callback=callback,
            clock=clock,
            forget=partial(engine.forget, settings.study.name),
        )
        self.engine, self.callback, self._clock, self._times = engine, callback, clock, times
        self.candidates = Candidates(self.recorder, targets, engine, stop, times)
        self.trainings = Trainings(self.recorder, engine, images, times)
        self._batch = settings.search.batch or settings.engine.workers
        self._interrupted, self._asked_to_stop = stop, False
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
            self._reconcile()
            ending = self._step()
            while ending is None:
                ending = self._step()
            self.mirror.write()
            return ending
        finally:
            self.candidates.close()

    def _step(self) -> Ending | None:
        """Go once round: look, gate, dispatch, ask for more if more is needed, and observe. Return how it ended."""
        state, candidates, trainings = self.state, self.candidates, self.trainings
        self.callback.progress(state.done, state.wanted)
        if state.fatal is not None:
            self._wind_down()
            raise state.fatal
        self._look()
        if self._asked_to_stop or self._interrupted.is_set():
            self._wind_down()
            return "stopped"
        trainings.renew_attempts()
        candidates.gate_priced()
        if not candidates.holding_up:
            trainings.dispatch()
        self.mirror.write_after(self._times.mirror_s)
        if candidates.pricing:
            trainings.observe(self.engine.poll(0.0))
            return None
        return self._ask_or_wait()

    def _ask_or_wait(self) -> Ending | None:
        """With no batch being priced: ask for candidates, or wait for trainings, or end."""
        state, candidates = self.state, self.candidates
        missing = max(state.missing, len(candidates.enqueued))
        waiting = any(map(state.needs, state.queue))
        if missing <= 0 and not state.running and not waiting:
            return self._finish()
        more = missing > 0 and candidates.more_to_try()
        if not more and not state.running and not waiting:
            return "exhausted"
        if more and not waiting:
            candidates.propose(min(self._batch, missing))
            self.trainings.observe(self.engine.poll(0.0))
        else:
            self.trainings.observe(self.engine.poll(self._times.poll_s))
        return None

    def _finish(self) -> Ending | None:
        """End the search, unless a user has just asked for something more."""
        self._look(now=True)
        if self.candidates.enqueued:
            return None
        self.candidates.drop_unpriced()
        if kept := len(self.state.queue):
            verb = agreeing(kept, "is", "are")
            self.callback.note(f"{counted(kept, 'priced trial')} {verb} kept for a larger number of trainings")
        return "finished"

    def _look(self, now: bool = False) -> None:
        """Say that the controller lives, and see what users want: a stop, trials cancelled, configs tried."""
        if not now and self._clock.monotonic() - self._looked_at < self._times.look_s:
            return

        def look() -> tuple[bool, list[int], list[EnqueuedConfig]]:
            return self.store.heartbeat(), self.store.cancel_requests(), self.store.pending_requests()

        self._asked_to_stop, unwanted, self.candidates.enqueued = self.store.transact(look)
        self._looked_at = self._clock.monotonic()
        self._cancel(unwanted)

    def _cancel(self, unwanted: Sequence[int]) -> None:
        """End the trials that a user cancelled: at once, or when their workers have let go of them."""
        for number in unwanted:
            if number in self.state.cancelled:
                continue
            self.state.cancelled.add(number)
            if number in self.state.running:
                self.engine.cancel(number)
            else:
                self.recorder.record([cancelled(self.store.trial(number), self._clock.now())])

    def _wind_down(self) -> None:
        """Let every worker write its checkpoint; what can't in time is resumed from an earlier one."""
        self.candidates.stop()
        if self.state.running:
            running = counted(len(self.state.running), "running trial")
            verb = agreeing(len(self.state.running), "writes its checkpoint", "write their checkpoints")
            self.callback.note(f"stopping: {running} {verb} …")
            self.engine.stop()
            until = self._clock.monotonic() + self._times.wind_down_s
            while self.state.running and self._clock.monotonic() < until:
                self.trainings.observe(self.engine.poll(self._times.poll_s))
                self._look()  # the lease must not run out meanwhile
        self.mirror.write()

    def _reconcile(self) -> None:
        """Read the tables and put everything an earlier controller left open back in its place."""
        rows = self.store.trials()
        self.mirror.drop_open_trials()
        self.proposer.replay(rows)
        for row in rows:
            self.state.add(row)
        self.trainings.replay(rows)
        reopened = [row for row in rows if row.state in (TrialState.QUEUED, TrialState.RUNNING)]
        for row in rows:
            self._reconcile_one(row)
        self.recorder.record([Reopened(replace(row, state=TrialState.QUEUED)) for row in reopened])
        self.mirror.write()
        if rows:
            left_open = len(self.candidates.unpriced) + len(self.state.queue)
            done, trials = counted(self.state.done, "training"), counted(left_open, "trial")
            self.callback.note(f"resuming: {done} done, {trials} to go on with")
        for row in rows[-NEWEST_SHOWN:]:
            self.callback.trial(row)

    def _reconcile_one(self, row: TrialRow) -> None:
        """Put one trial that isn't queued or running back in its place."""
        if row.state == TrialState.ASKED:
            if not self.candidates.refuse_unmeasured(row):
                self.candidates.unpriced.append(row)
            return
        if row.state in (TrialState.DONE, TrialState.PRUNED):
            self.state.done += 1
        if row.state == TrialState.DONE:
            self.recorder.files.add_done(row)
        if row.finished_at is not None and not row.mirrored:
            self.recorder.clean(row)
            self.mirror.add(row)
