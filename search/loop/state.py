"""What a controller keeps of its study in memory: the open trials, the counts, and what ends the search.

This module neither decides nor writes anything: `record.Recorder` changes the state once a decision is in the store.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from search.budget import Budget
from search.loop.outcomes import LateNews
from search.samplers.stopping import StoppingRule, make_rule
from search.settings import StudySettings
from search.store.rows import TrialRow
from search.store.vocabulary import MAY_BE_TRIED_AGAIN, TrialState
from space.errors import CondenseryError
from workers.training.reporting import ProgressReport


@dataclass
class RunningTrial:
    """A trial with a worker."""

    row: TrialRow
    heard_at: float  # when its worker last gave a sign of life, by the monotonic clock
    pruned_because: str | None = None  # why the stopping rule ends it, once it does
    expected_score: float | None = None  # what it would end with, as predicted when the rule ended it
    told_to_end: bool = False  # whether its worker was told of that
    report: ProgressReport | None = None  # how far it is, until that is in the store


class SearchState:
    """The trials of one study as its controller knows them."""

    def __init__(self, settings: StudySettings) -> None:
        self.settings = settings
        self.budget: Budget = settings.search_budget()
        self.rule: StoppingRule = make_rule(settings)
        self.queue: deque[TrialRow] = deque()  # priced and inside the budgets
        self.running: dict[int, RunningTrial] = {}
        self.ended_early: dict[int, TrialRow] = {}  # by number: not taken up again so far
        self.taken_up = 0  # trials that were ended early and have gone on since, as others
        self.finished = 0  # trials that are done
        self.cancelled: set[int] = set()  # trials that a user wants ended
        self.late_news: set[LateNews] = set()  # already noted in the store
        self.tried_smaller: set[int] = set()  # trials that were tried with half their batch size
        self.wanted = settings.study.trainings
        self.done = self.failures_in_a_row = 0
        self.fatal: CondenseryError | None = None  # why the search has to end
        self.smallest_macs: int | None = None
        self.smallest_ms: float | None = None
        self._holders: dict[str, int] = {}  # by identity: the first trial that has, or may get, its result

    def add(self, row: TrialRow) -> None:
        """Count a trial that is new to this controller."""
        if row.state not in MAY_BE_TRIED_AGAIN:
            self.claim_identity(row)
        self.smallest_macs = min(row.macs, self.smallest_macs or row.macs)
        self.add_latency(row)
        if row.state == TrialState.PRUNED:
            self.ended_early[row.number] = row
        if row.continues is not None:
            self.ended_early.pop(row.continues, None)
            self.taken_up += 1

    def count_ended(self, row: TrialRow) -> None:
        """Count a trial that is done or was ended early; one that takes up another is one training with it."""
        self.finished += row.state == TrialState.DONE
        self.done += row.continues is None

    def add_latency(self, row: TrialRow) -> None:
        """Count the latency that a trial is judged by, once it has one."""
        if row.latency is not None:
            judged_ms = self.budget.judged_ms(row.latency) or row.latency.interval_high_ms
            self.smallest_ms = min(judged_ms, self.smallest_ms or judged_ms)

    def claim_identity(self, row: TrialRow) -> None:
        """Make a trial the holder of its identity, unless an equal one holds it already that it doesn't take up."""
        if row.continues is None:
            self._holders.setdefault(row.identity, row.number)
        else:
            self._holders[row.identity] = row.number

    def holder_of(self, row: TrialRow) -> int:
        """Return the trial that has, or may get, the result of this one's identity: itself, or an equal one."""
        return self._holders.get(row.identity, row.number)

    def give_up_identity(self, row: TrialRow) -> None:
        """Allow an equal trial to be tried, because this one has no result."""
        if self._holders.get(row.identity) != row.number:
            return
        if row.continues is None:
            del self._holders[row.identity]
        else:
            self._holders[row.identity] = row.continues  # which was ended early, so that nothing equal is trained

    def remove_from_queue(self, number: int) -> None:
        """Take a trial out of the queue, if it is there."""
        if any(row.number == number for row in self.queue):
            self.queue = deque(row for row in self.queue if row.number != number)

    @property
    def missing(self) -> int:
        """How many more candidates the number of trainings needs."""
        return self.wanted - self.done - self._counted_running() - sum(row.continues is None for row in self.queue)

    def _counted_running(self) -> int:
        """How many running trials are trainings of their own."""
        return sum(trial.row.continues is None for trial in self.running.values())

    def needs(self, row: TrialRow, ahead: int = 0) -> bool:
        """Whether a queued trial is to run; a study resumed with fewer trainings may have more queued than it wants."""
        return row.is_promised or self.done + self._counted_running() + ahead < self.wanted
