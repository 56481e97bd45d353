"""Candidates: proposed, recorded, priced in batches, and let through or refused.

Notable choices:
- A batch is priced ahead of the workers, so the anchor is shared and no worker waits for a measurement that could have
  been made before; in a thread, so that a slow device holds up nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from search.budget import refusal
from search.engines.base import Engine
from search.loop.state import SearchState, Step
from search.pricing.pricer import Pricer, Prices, Target
from search.store.rows import EnqueuedConfig, NewTrial, TrialRow
from search.store.vocabulary import TrialState
from space.errors import BudgetUnreachable, SearchFailed
from workers.latency.measurement import FailedMeasurement
from workers.latency.probes import measuring_cores

PRICING_POLL_S = 0.25  # at most: a batch that is done is taken at once


class Candidates:
    """The way of a trial from the sampler to the queue of those that are to be trained."""

    def __init__(self, ledger: SearchState, targets: Sequence[Target], engine: Engine, stop: threading.Event) -> None:
        self.ledger, self._engine, self._stop = ledger, engine, stop
        self.pricer = Pricer(targets, ledger.files)
        latency = ledger.settings.latency
        self.cores = measuring_cores(latency.core, latency.threads)
        self.wishes: list[EnqueuedConfig] = []  # configs that users want tried
        self.unpriced: list[TrialRow] = []  # asked by an earlier controller
        self.pricing: list[TrialRow] = []  # the batch that is being measured
        self._quiet = ExitStack()  # keeps workers off the measuring processor meanwhile
        self._refusals_in_a_row = 0

    @property
    def holding_up(self) -> bool:
        """Whether a measurement on this machine is under way, beside which no training may start."""
        return bool(self.pricing) and self.pricer.local

    def stop(self) -> None:
        """End the batch under way; its candidates stay `asked`, and are priced when the study goes on."""
        self.pricer.stop()
        self.pricing = []
        self._quiet.close()

    def close(self) -> None:
        """End the batch under way and the thread."""
        self.pricer.close()
        self._quiet.close()

    def propose(self, count: int) -> None:
        """Ask for candidates until `count` need measuring (or a good many were refused), then price and gate them."""
        candidates, self.unpriced = self.unpriced[:count], self.unpriced[count:]
        wishes = deque(self.wishes)
        for _ in range(50):
            # The count may be that of the wishes alone: what the study has enough of is not asked for.
            sampled = sum(row.origin == "sampled" for row in candidates)
            enough = self.ledger.proposer.exhausted or sampled >= self.ledger.missing
            short = count - len(candidates)
            if short <= 0 or self._stop.is_set() or (enough and not wishes):
                break
            asked = []
            for _ in range(min(short, max(1, len(wishes), self.ledger.missing - sampled))):
                wish = wishes.popleft() if wishes else None
                asked.append((self.ledger.proposer.ask(wish), wish))
            candidates += [row for row in self._record(asked) if not self.refused_unmeasured(row)]
        self.wishes = list(wishes)
        candidates = [row for row in candidates if row.number not in self.ledger.cancelled]
        if candidates:
            if self.pricer.local:
                self._quiet.enter_context(self._engine.quiet(self.cores))
            self.pricing = candidates
            self.pricer.start([row.config for row in candidates])
        self._give_up_if_hopeless()

    def _record(self, asked: Sequence[tuple[NewTrial, EnqueuedConfig | None]]) -> list[TrialRow]:
        """Record proposals as `asked`."""
        at = time.time()
        keys = self.ledger.store.transact(lambda: [self.ledger.store.add_trial(new, wish, at) for new, wish in asked])
        rows = [TrialRow.of_new(new, key, at) for (new, _), key in zip(asked, keys, strict=True)]
        for row in rows:
            self.ledger.meet(row)
            self.ledger.view.trial(row)
        return rows

    def refused_unmeasured(self, row: TrialRow) -> bool:
        """Refuse what needs no measurement: a duplicate, or macs or params over the budget."""
        same = self.ledger.results.setdefault(row.identity, row.number)
        if same != row.number:
            self.ledger.proposer.next_at_random()
            self.ledger.close(row, "duplicate", reason=f"same as trial {same}", duplicate_of=same)
        elif why := refusal(self.ledger.budget, row.macs, row.params, None):
            self.ledger.close(row, "infeasible", reason=why)
        else:
            return False
        self._refusals_in_a_row += 1
        return True

    def take_prices(self) -> None:
        """When the batch under way is measured: record it, then let each candidate through or refuse it."""
        prices = self.pricer.take(PRICING_POLL_S)
        if prices is None:
            return
        self._quiet.close()
        rows, self.pricing = self.pricing, []
        step = Step()
        for row, found in zip(rows, prices, strict=True):
            if row.number not in self.ledger.cancelled:
                self._gate(step, row, found)
        step.run(self.ledger.store.transact)
        self._give_up_if_hopeless()

    def _gate(self, step: Step, row: TrialRow, prices: Prices) -> None:
        """Plan to record a candidate's prices and what is decided on it."""
        first, at, latencies = self.pricer.targets[0].name, time.time(), []
        for target, found in prices.items():
            if isinstance(found, FailedMeasurement):
                place = "" if target == first else f" on {target}"
                self.ledger.plan_failure(step, row, f"latency{place} could not be measured: {found.reason}")
                return
            judged = target == first
            priced_on = replace(found, target=target, measured_at=at)
            step.writes.append(partial(self.ledger.store.add_latency, row.number, priced_on, judged))
            latencies.append(priced_on.record)
        others = tuple(sorted((one for one in latencies if one.target != first), key=lambda one: one.target))
        judging = next((one for one in latencies if one.target == first), None)
        priced = replace(row, latency=judging, others=others)
        if judging is not None:
            self.ledger.smallest_ms = min(judging.interval_high_ms, self.ledger.smallest_ms or judging.interval_high_ms)
        why = refusal(self.ledger.budget, row.macs, row.params, judging, others)
        if why is not None:
            self._refusals_in_a_row += 1
            self.ledger.plan_close(step, priced, "infeasible", reason=why)
            return
        self._refusals_in_a_row = 0
        queued = replace(priced, state=TrialState.QUEUED)
        step.writes.append(partial(self.ledger.store.set_queued, row.number))
        step.then += [partial(self.ledger.proposer.constrain, queued), partial(self._enqueue, queued)]

    def _enqueue(self, row: TrialRow) -> None:
        if row.origin == "enqueued":
            self.ledger.queue.appendleft(row)  # somebody asked for it
        else:
            self.ledger.queue.append(row)
        self.ledger.view.trial(row)

    def more_to_try(self) -> bool:
        """Whether anything can still be proposed: the space isn't used up, or an earlier proposal or a wish waits."""
        return not self.ledger.proposer.exhausted or bool(self.unpriced) or bool(self.wishes)

    def drop_unpriced(self) -> None:
        """Close what an earlier controller asked for and this study doesn't need any more."""
        for row in self.unpriced:
            self.ledger.close(row, "cancelled", reason="the study had its trainings before this was priced")
        self.unpriced = []

    def _give_up_if_hopeless(self) -> None:
        busy = self.ledger.running or self.ledger.queue or self.pricing
        if self._refusals_in_a_row < self.ledger.settings.search.give_up_after or busy:
            return
        self.ledger.proposer.flush(now=True)
        reached = [f"smallest macs seen {self.ledger.smallest_macs:,}"]
        if self.ledger.smallest_ms is not None:
            reached.append(f"smallest latency seen {self.ledger.smallest_ms:.4g} ms")
        text = (
            f"{self._refusals_in_a_row} proposals in a row were refused or repeated (budget {self.ledger.budget}; "
            f"{', '.join(reached)}); widen the space or the budget."
        )
        raise SearchFailed(text) if self.ledger.done else BudgetUnreachable(text)
