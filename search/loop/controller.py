"""The controller: one process that asks, prices, gates, dispatches and records.

The way of a candidate, from proposal to outcome:

    Candidates.propose       the sampler, or a user, proposes a config; it is recorded, and priced in a thread
    Candidates.gate_priced   once it is priced, it is queued or refused
    Trainings.dispatch       once a worker is free, its training starts
    Trainings.observe        its worker reports epochs, and finally how the attempt ended
    Recorder.record          each of these steps writes its decision into the store, then into memory
    OptunaMirror.write       its outcome is written into Optuna's tables

Every step is one transaction, written before the next begins, and may be repeated: wherever a controller dies, the next
one reads the tables (`_reconcile`) and goes on from there.
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
from search.loop.weighing import last_weighing
from search.pricing.pricer import Target
from search.samplers.proposer import Proposer
from search.store.rows import EnqueuedConfig, TrialRow
from search.store.vocabulary import TrialState
from search.study import OpenStudy
from search.warm_start import kept
from workers.clock import Clock, SystemClock
from workers.wording import agreeing, counted

NEWEST_SHOWN = 20  # trials that the callback shows when a study is resumed

Ending = Literal["finished", "stopped", "exhausted"]


class Controller:
    """Runs one study until it has as many trainings as it wants; see the module.

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
        times: LoopTimes | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings, times, clock = study.settings, times or LoopTimes(), clock or SystemClock()
        observations = kept(files, settings.search.warm_start)
        self.state, self.store = SearchState(settings), study.store
        self.proposer = Proposer(settings, observations)
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
        """Search until the trainings are done, every network inside the limits has been tried, or a user stops it.

        Raises:
            BudgetUnreachable: no network is inside the limits; or proposal after proposal was refused, and nothing was
                ever trained.
            SearchFailed: the same after some trainings, or one training after another failed.
            DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage: no worker could go on; nothing recorded is lost.
            StudyBusy: another process has taken the study over.
        """
        try:
            self._reconcile()
            ending = self._step()
            while ending is None:
                ending = self._step()
            self.mirror.write()
            if ending != "stopped":
                self.recorder.record_belief(self.proposer.outlook(self._clock.now()))
            return ending
        finally:
            self.candidates.close()

    def _step(self) -> Ending | None:
        """Look, gate, dispatch, ask for candidates if any are missing, and observe; return the ending, if it is one."""
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
        """While no batch is being priced, ask for candidates, wait for trainings, or end."""
        state, candidates = self.state, self.candidates
        candidates.take_up(last=state.missing <= 0 or not candidates.more_to_try())
        missing = max(state.missing, len(candidates.enqueued), candidates.promised())
        waiting = any(map(state.needs, state.queue))
        if missing <= 0 and not state.running and not waiting:
            return self._finish()
        more = missing > 0 and candidates.more_to_try()
        if not more and not state.running and not waiting:
            candidates.fail_if_hopeless()
            self.recorder.clean_ended_early()
            return "exhausted"
        if more and not waiting:
            candidates.propose(min(self._batch, missing))
            # If all were refused, the sampler is to learn from the trainings under way before it is asked again.
            hopeless = not candidates.pricing and bool(state.running)
            self.trainings.observe(self.engine.poll(self._times.poll_s if hopeless else 0.0))
        else:
            self.trainings.observe(self.engine.poll(self._times.poll_s))
        return None

    def _finish(self) -> Ending | None:
        """End the search, unless a user has just enqueued a config."""
        self._look(now=True)
        if self.candidates.enqueued:
            return None
        self.candidates.drop_unpriced()
        self.recorder.clean_ended_early()
        if kept := len(self.state.queue):
            verb = agreeing(kept, "is", "are")
            self.callback.note(f"{counted(kept, 'priced trial')} {verb} kept for a larger number of trainings")
        return "finished"

    def _look(self, now: bool = False) -> None:
        """Send a heartbeat, and read users' requests: to stop, to cancel trials, to try configs."""
        if not now and self._clock.monotonic() - self._looked_at < self._times.look_s:
            return

        def look() -> tuple[bool, list[int], list[EnqueuedConfig]]:
            return self.store.heartbeat(), self.store.cancel_requests(), self.store.pending_requests()

        self._asked_to_stop, numbers, self.candidates.enqueued = self.store.transact(look)
        self._looked_at = self._clock.monotonic()
        self._cancel(numbers)

    def _cancel(self, numbers: Sequence[int]) -> None:
        """End the trials that a user cancelled: at once, or when their workers have given them up."""
        for number in numbers:
            if number in self.state.cancelled:
                continue
            self.state.cancelled.add(number)
            if number in self.state.running:
                self.engine.cancel(number)
            else:
                self.recorder.record([cancelled(self.store.trial(number), self._clock.now())])

    def _wind_down(self) -> None:
        """Let every worker write its checkpoint; a trial whose worker is too slow resumes from an earlier one."""
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
        """Read the tables and take up every trial that an earlier controller left open."""
        rows = self.store.trials()
        self.mirror.drop_open_trials()
        self.proposer.replay(rows)
        for row in rows:
            self.state.add(row)
        self.trainings.replay(rows)
        self.candidates.weighed = last_weighing(rows)
        self.candidates.go_on_giving_up(rows)
        reopened = [row for row in rows if row.state in (TrialState.QUEUED, TrialState.RUNNING)]
        for row in rows:
            self._reconcile_one(row)
        reopened.sort(key=_turn)
        self.recorder.record([Reopened(replace(row, state=TrialState.QUEUED)) for row in reopened])
        only_rest = self.state.missing <= 0 or not self.candidates.more_to_try()
        self.candidates.said_rest = bool(rows) and rows[-1].continues is not None and only_rest
        self.mirror.write()
        self.recorder.remove_dominated()  # what a killed controller had recorded and not yet removed
        if rows:
            left_open = len(self.candidates.unpriced) + len(self.state.queue)
            done, trials = counted(self.state.done, "training"), counted(left_open, "trial")
            self.callback.note(f"resuming: {done} done, {trials} to go on with")
        for row in rows[-NEWEST_SHOWN:]:
            self.callback.trial(row)

    def _reconcile_one(self, row: TrialRow) -> None:
        """Take up a trial that is neither queued nor running."""
        if row.state == TrialState.ASKED:
            if not self.candidates.refuse_unmeasured(row):
                self.candidates.unpriced.append(row)
            return
        if row.state in (TrialState.DONE, TrialState.PRUNED):
            self.state.count_ended(row)
        if row.state == TrialState.DONE:
            self.recorder.files.add_done(row)
        if row.finished_at is not None and not row.mirrored:
            self.recorder.clean(row)
            self.mirror.add(row)


def _turn(row: TrialRow) -> tuple[bool, bool, int]:
    """Return what puts reopened trials into the order in which they waited: see `Recorder`, which queues them."""
    ahead = row.is_promised
    return row.attempt == 0, not ahead, -row.number if ahead else row.number
