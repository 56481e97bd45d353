"""Candidates: asked for, priced in batches, and let through the gate or refused.

Notable choices:
- A batch is priced ahead of the workers, so the anchor is shared and no worker waits for a measurement that could have
  been made before; in a thread, so that a slow device holds up nothing else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import takewhile

from search.budget import refusal
from search.engines.base import Engine
from search.loop.outcomes import Ended, Queued, cancelled, ended
from search.loop.record import Recorder
from search.loop.times import LoopTimes
from search.loop.weighing import point
from search.pricing.pricer import NotRecorded, Price, Pricer, Target
from search.samplers.stopping import HOPELESS
from search.store.rows import EnqueuedConfig, NewTrial, TrialRow
from search.store.vocabulary import TrialOrigin, TrialState
from space.errors import BudgetUnreachable, SearchFailed
from workers.latency.host_probe import disturbing_cores
from workers.latency.measurement import FailedMeasurement
from workers.wording import agreeing, counted

LEAST_CHANCE = 0.4  # of extending the front, with which a trial that was ended early is taken up while others are asked
REFUSED = (TrialState.INFEASIBLE, TrialState.DUPLICATE)
MOST_ROUNDS = 50  # of asking, before the candidates at hand are priced, however few


class Candidates:
    """Brings trials from the sampler (or a user) to the queue of those to train, or refuses them."""

    def __init__(
        self, recorder: Recorder, targets: Sequence[Target], engine: Engine, stop: threading.Event, times: LoopTimes
    ) -> None:
        self._recorder, self._state, self._proposer = recorder, recorder.state, recorder.proposer
        self._engine, self._stop, self._times = engine, stop, times
        self.pricer = Pricer(targets, recorder.files.root)
        latency = self._state.settings.latency
        self._cores = disturbing_cores(latency.core, latency.threads)
        self.enqueued: list[EnqueuedConfig] = []  # configs that users want tried
        self.unpriced: list[TrialRow] = []  # asked by an earlier controller
        self.pricing: list[TrialRow] = []  # the batch that is being measured
        self.weighed = 0  # see `weighing.last_weighing`; an earlier controller's, to begin with
        self._left: tuple[int, ...] = ()  # what was known when no other candidates were missing and they were weighed
        self.said_rest = False  # whether it was said, by this or an earlier controller, that only those go on
        self._pauses = ExitStack()  # keeps workers from disturbing while a batch is measured
        self._refusals_in_a_row = 0

    @property
    def holding_up(self) -> bool:
        """Whether a measurement on this machine is under way, during which no training may start."""
        return bool(self.pricing) and self.pricer.local

    def stop(self) -> None:
        """End the batch under way; its candidates stay `asked`, and are priced when the study goes on."""
        self.pricer.stop()
        self.pricing = []
        self._pauses.close()

    def close(self) -> None:
        """End the batch under way and the thread."""
        self.pricer.close()
        self._pauses.close()

    # -- ask --

    def propose(self, count: int) -> None:
        """Ask for candidates until `count` need measuring (or many were refused), and begin to price them."""
        rows = self._ask(count)
        for doubt in self._proposer.doubts():
            self._recorder.callback.note(f"sampler: {doubt}")
        if rows:
            if self.pricer.local:
                self._pauses.enter_context(self._engine.paused(self._cores))
            self.pricing = rows
            self.pricer.start([row.config for row in rows])
            self._recorder.record_belief(self._proposer.belief(self._recorder.clock.now()))

    def _ask(self, count: int) -> list[TrialRow]:
        """Return up to `count` recorded candidates that only a measurement can refuse."""
        in_turn = sorted(self.unpriced, key=lambda row: not row.is_promised)
        rows, self.unpriced = in_turn[:count], in_turn[count:]
        enqueued = deque(self.enqueued)
        for _ in range(MOST_ROUNDS):
            # `count` may come from the enqueued configs alone; a study with enough trainings samples no more.
            sampled = sum(row.origin == TrialOrigin.SAMPLED and row.continues is None for row in rows)
            wanted = 0 if self.given_up else min(self._state.missing - sampled, self._proposer.supply.left)
            short = count - len(rows)
            if short <= 0 or self._stop.is_set() or (wanted <= 0 and not enqueued):
                break
            asked: list[tuple[NewTrial, EnqueuedConfig | None]] = []
            for _ in range(int(min(short, max(1, len(enqueued), wanted)))):
                config = enqueued.popleft() if enqueued else None
                asked.append((self._proposer.ask(config), config))
            rows += [row for row in self._recorder.record_asked(asked) if not self.refuse_unmeasured(row)]
        self.enqueued = list(enqueued)
        return self._wanted(rows)

    # -- take up again --

    def take_up(self, last: bool = False) -> None:
        """Ask again for trials that were ended early and may extend the front after all, the likeliest first.

        What is finished raises the bar, but also teaches the rule. So they are weighed whenever a tenth more trainings
        have finished (see `weighing`), and one goes on at a time: what it ends with counts for the others. At the
        `last`, when no other candidates are missing, all go on that aren't hopeless, as many at a time as there are
        workers.
        """
        state = self._state
        if not state.rule.takes_up or self._stop.is_set():
            return
        if last:
            self._take_up_rest()
        elif point(state.finished) > self.weighed and not self._continuing():
            self.weighed = point(state.finished)
            self._go_on(self._likely(LEAST_CHANCE)[:1])

    def _take_up_rest(self) -> None:
        """Let those that aren't hopeless go on, as far as workers are free.

        They are weighed until none is left to go on, however the ones before end: done, ended early again, cancelled,
        failed, or refused at once by a budget that has become tighter.
        """
        state = self._state
        while (free := self._free_workers()) > 0 and self._left != (state.finished, *state.ended_early):
            self._left, self.weighed = (state.finished, *state.ended_early), point(state.finished)
            rest = self._likely(HOPELESS)
            if rest and not self.said_rest:
                trials = counted(len(rest), "trial")
                verb = agreeing(len(rest), "was", "were")
                text = (
                    f"nothing new is tried any more; {trials} that {verb} paused may still extend the front and go on"
                )
                self._recorder.callback.note(text)
                self.said_rest = True
            self._go_on(rest[:free])  # changes what is left, so that the others are weighed again

    def _free_workers(self) -> int:
        """Return how many workers have nothing to do, nor will have once what needs no asking is priced."""
        state = self._state
        waiting = sum(map(state.needs, state.queue)) + self._waiting_to_go_on() + len(self.pricing)
        return state.settings.engine.workers - waiting - len(state.running)

    def _likely(self, least_chance: float) -> list[TrialRow]:
        """Return the trials that were ended early and have this chance of extending the front, the best first."""
        state = self._state
        rows = [row for row in state.ended_early.values() if self._has_rest(row)]
        chances = {row.number: state.rule.prospect(row.number) for row in rows}
        likely = [row for row in rows if chances[row.number] >= least_chance]
        return sorted(likely, key=lambda row: (-chances[row.number], row.number))

    def _go_on(self, rows: Sequence[TrialRow]) -> None:
        """Ask for trials that take these up; each has the price of its network already, unless a device is new."""
        for row in rows:
            (again,) = self._recorder.record_asked([(self._proposer.take_up(row), None)])
            gone_on, paused = self._state.taken_up, self._state.taken_up + len(self._state.ended_early)
            have = agreeing(gone_on, "has", "have")
            text = f"trial {row.number} goes on as trial {again.number}, for its network may extend the front after all"
            self._recorder.callback.note(f"{text}; {gone_on} of {paused} that were paused {have} gone on")
            prices = self._recorder.store.prices(row)
            if prices.keys() == {target.name for target in self.pricer.targets}:
                self._recorder.record([self._gate(again, prices)])
            else:
                self.unpriced.append(again)

    def _continuing(self) -> bool:
        """Whether a trial that was taken up again is under way."""
        state = self._state
        under_way = (*self.unpriced, *self.pricing, *state.queue, *(trial.row for trial in state.running.values()))
        return any(row.continues is not None for row in under_way)

    def _has_rest(self, row: TrialRow) -> bool:
        """Whether only the rest of a trial has to be trained."""
        return self._state.settings.replay.table is not None or self._recorder.files.has_checkpoint(row.number)

    def promised(self) -> int:
        """Return how many trials wait to be priced that are to train however many trainings there are."""
        return sum(row.is_promised for row in self._wanted(self.unpriced))

    def _waiting_to_go_on(self) -> int:
        return sum(row.continues is not None for row in self._wanted(self.unpriced))

    def _wanted(self, rows: Sequence[TrialRow]) -> list[TrialRow]:
        """Return those that no user has cancelled: the others have ended already."""
        return [row for row in rows if row.number not in self._state.cancelled]

    def refuse_unmeasured(self, row: TrialRow) -> bool:
        """Refuse a duplicate, or one with macs or params over the budget; return whether it was refused."""
        refused = self._refusal_unmeasured(row)
        if refused is None:
            return False
        if refused.row.state == TrialState.DUPLICATE:
            self._proposer.next_at_random()
        self._recorder.record([refused])
        self._refusals_in_a_row += 1
        return True

    def _refusal_unmeasured(self, row: TrialRow) -> Ended | None:
        now, first = self._recorder.clock.now(), self._state.holder_of(row)
        if first != row.number:
            duplicate = ended(row, TrialState.DUPLICATE, now, f"same as trial {first}")
            return replace(duplicate, row=replace(duplicate.row, duplicate_of=first))
        reason = refusal(self._state.budget, row.macs, row.params, None)
        return None if reason is None else ended(row, TrialState.INFEASIBLE, now, reason)

    # -- gate --

    def gate_priced(self) -> None:
        """Once the batch under way is measured, queue or refuse each of its candidates."""
        batch = self.pricer.collect(self._times.pricing_poll_s)
        if batch is None:
            return
        self._pauses.close()
        rows, self.pricing = self.pricing, []
        decisions = [
            self._gate(row, prices)
            for row, prices in zip(rows, batch, strict=True)
            if row.number not in self._state.cancelled
        ]
        self._recorder.record(decisions)
        for decision in decisions:
            if decision.row.continues is not None:
                continue  # no proposal
            if isinstance(decision, Queued):
                self._refusals_in_a_row = 0
            elif decision.row.state == TrialState.INFEASIBLE:
                self._refusals_in_a_row += 1

    def _gate(self, row: TrialRow, prices: Mapping[str, Price]) -> Queued | Ended:
        """Return whether a candidate with these prices is queued, refused or failed."""
        first, now = self.pricer.targets[0].name, self._recorder.clock.now()
        measured = [
            replace(price, target=target, measured_at=price.measured_at or now)
            for target, price in prices.items()
            if not isinstance(price, FailedMeasurement)
        ]
        measured.sort(key=lambda price: (price.target != first, price.target))
        judged = next((price.record for price in measured if price.target == first), None)
        others = tuple(price.record for price in measured if price.target != first)
        priced = replace(row, latency=judged, others=others)
        for target, price in prices.items():
            if isinstance(price, NotRecorded):
                return replace(ended(priced, TrialState.INFEASIBLE, now, price.reason), prices=measured)
            if isinstance(price, FailedMeasurement):
                place = "" if target == first else f" on {target}"
                reason = f"latency{place} could not be measured: {price.reason}"
                return replace(ended(priced, TrialState.FAILED, now, reason), prices=measured)
        refused_because = refusal(self._state.budget, row.macs, row.params, judged, others)
        if refused_because is not None:
            return replace(ended(priced, TrialState.INFEASIBLE, now, refused_because), prices=measured)
        return Queued(replace(priced, state=TrialState.QUEUED), measured)

    # -- when there is nothing more to do --

    def more_to_try(self) -> bool:
        """Whether anything can still be proposed: by the sampler, by a user, or by an earlier controller."""
        new = not self.given_up and self._proposer.supply.left > 0
        return new or bool(self.unpriced) or bool(self.enqueued)

    @property
    def given_up(self) -> bool:
        """Whether so many proposals in a row were refused or repeated that the sampler is asked no more."""
        return self._refusals_in_a_row >= self._state.settings.search.give_up_after

    def go_on_giving_up(self, rows: Sequence[TrialRow]) -> None:
        """Ask no more if an earlier controller had given up, and was letting go on what had been paused."""
        if any(row.continues is not None and row.finished_at is None for row in rows):
            proposals = (row for row in reversed(rows) if row.continues is None and row.state != TrialState.ASKED)
            self._refusals_in_a_row = sum(1 for _ in takewhile(lambda row: row.state in REFUSED, proposals))

    def drop_unpriced(self) -> None:
        """Cancel candidates of an earlier controller that the finished study doesn't need any more."""
        reason, now = "the study had its trainings before this was priced", self._recorder.clock.now()
        self._recorder.record([cancelled(row, now, reason) for row in self._wanted(self.unpriced)])
        self.unpriced = []

    def fail_if_hopeless(self) -> None:
        """Raise if a search in which nothing is left to do ends because of its budget, not of its space.

        Raises:
            BudgetUnreachable: no network is inside, or none was found and nothing was ever trained.
            SearchFailed: none was found any more.
        """
        state, supply = self._state, self._proposer.supply
        self._recorder.mirror.write()
        if (smallest := supply.nothing_fits) is not None and not state.done:
            raise BudgetUnreachable(
                f"no network of the space is inside the budget ({state.budget}; {smallest}); widen the space or the "
                "budget."
            )
        if supply.left <= 0 or not self.given_up:
            return
        reached = [f"smallest macs seen {state.smallest_macs:,}"]
        if state.smallest_ms is not None:
            reached.append(f"smallest latency seen {state.smallest_ms:.4g} ms")
        text = (
            f"{self._refusals_in_a_row} proposals in a row were refused or repeated (budget {state.budget}; "
            f"{', '.join(reached)}); widen the space or the budget."
        )
        raise SearchFailed(text) if state.done else BudgetUnreachable(text)
