"""One peer searching one table: it asks, the table answers, and only trainings of new networks count.

Notable choices:
- A network that was trained before is told with the same result again; one that the table doesn't hold is told as
  failed. Neither counts.
- Behind the gate a network over the budget is refused: told as pruned with its constraints, never trained, not
  counted. Without the gate it is trained, counts, and is told with its constraints.
- A peer that repeats itself more than `retries` times in a row gets a network drawn at random among those that it may
  still train, as a user who notices would do; how often is part of the result. A cap on asks ends a peer that gets
  nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.sample_efficiency.hypervolume import Array
from benchmarks.sample_efficiency.table import Params, Table
from workers.wording import counted


class State(StrEnum):
    """How a proposal ends."""

    DONE = "done"
    REFUSED = "refused"  # over the budget
    FAILED = "failed"  # the table doesn't hold it


@dataclass(frozen=True)
class Outcome:
    """What a peer is told of a proposal."""

    state: State
    accuracy: float | None = None
    costs: tuple[float, ...] = ()  # as in the table
    excess: tuple[float, ...] = ()  # log(cost / limit) of each limited cost; 0 or less is inside


class PeerEnded(Exception):
    """A peer can't go on; the message says why."""


class PeerBroke(PeerEnded):
    """A peer's library failed: what it would have reached isn't known."""


class Peer(Protocol):
    """A sampler that proposes one network after the other."""

    def ask(self) -> Params:
        """Return the next proposal.

        Raises:
            PeerEnded: the peer has none.
        """

    def tell(self, outcome: Outcome) -> None:
        """Tell how the latest proposal ended."""

    def add(self, params: Params, outcome: Outcome) -> None:
        """Tell how a network ended that the peer didn't propose."""

    def close(self) -> None:
        """Release what the peer holds; calling it again does nothing."""


@dataclass(frozen=True)
class Rules:
    """What holds for one run of a peer."""

    trainings: int
    retries: int = 3  # repeats in a row before a network is drawn at random
    asks_per_training: int = 200  # on average, before the run ends
    limits: tuple[float | None, ...] = ()  # for each cost
    gate: bool = False


@dataclass
class Run:
    """What a peer trained, in order, and what it took."""

    rows: list[int] = field(default_factory=list)
    asks: int = 0
    refused: int = 0
    failed: int = 0
    repeats: int = 0
    drawn: int = 0  # networks drawn at random for a peer that repeated itself
    ask_seconds: list[float] = field(default_factory=list)
    ended: str = ""  # why it trained fewer than asked for
    broke: bool = False  # whether that was a failure of its library


def within(table: Table, limits: Sequence[float | None]) -> NDArray[np.bool_]:
    """Return which networks (n,) exceed no limit."""
    inside = np.ones(len(table.configs), dtype=bool)
    for cost, limit in zip(table.costs.T, limits, strict=False):
        if limit is not None:
            inside &= cost <= limit
    return inside


def play(peer: Peer, table: Table, rules: Rules, seed: int) -> Run:
    """Let a peer search until it has trained what the rules ask for, or all that it may train."""
    return _Replay(peer, table, rules, seed).run()


class _Replay:
    def __init__(self, peer: Peer, table: Table, rules: Rules, seed: int) -> None:
        self._peer, self._table, self._rules = peer, table, rules
        self._rng = np.random.default_rng(seed)
        self._allowed = within(table, rules.limits) if rules.gate else np.ones(len(table.configs), dtype=bool)
        self._excess = _excess(table, rules.limits)
        self._run = Run()
        self._trained: set[int] = set()
        self._seen: set[object] = set()

    def run(self) -> Run:
        possible = int(self._allowed.sum())
        wanted = min(self._rules.trainings, possible)
        most_asks = wanted * self._rules.asks_per_training
        in_a_row = 0
        try:
            while len(self._run.rows) < wanted:
                if self._run.asks >= most_asks:
                    raise PeerEnded(
                        f"no more than {counted(len(self._run.rows), 'network')} in {counted(self._run.asks, 'ask')}"
                    )
                if in_a_row > self._rules.retries:
                    self._draw()
                    in_a_row = 0
                else:
                    in_a_row = 0 if self._ask() else in_a_row + 1
            if possible < self._rules.trainings:
                self._run.ended = "trained the only network" if possible == 1 else f"trained all {possible} networks"
        except PeerEnded as reason:
            self._run.ended, self._run.broke = str(reason), isinstance(reason, PeerBroke)
        return self._run

    def _ask(self) -> bool:
        """Let the peer propose, and answer; return whether the proposal was a new one."""
        begin = time.perf_counter()
        params = self._peer.ask()
        self._run.ask_seconds.append(time.perf_counter() - begin)
        self._run.asks += 1
        row = self._table.row(params)
        network = _identity(params, row)
        new = network not in self._seen
        self._seen.add(network)
        outcome = self._outcome(row)
        self._count(outcome.state, row, new)
        self._peer.tell(outcome)
        return new

    def _draw(self) -> None:
        """Train a network drawn at random among those that may still be trained."""
        open_rows = [row for row in np.flatnonzero(self._allowed).tolist() if row not in self._trained]
        row = int(self._rng.choice(open_rows))
        params = self._table.params(row)
        self._seen.add(_identity(params, row))
        self._run.drawn += 1
        self._count(State.DONE, row, new=True)
        self._peer.add(params, self._outcome(row))

    def _count(self, state: State, row: int | None, new: bool) -> None:
        self._run.repeats += not new
        self._run.refused += new and state == State.REFUSED
        self._run.failed += new and state == State.FAILED
        if state == State.DONE and row is not None and row not in self._trained:
            self._trained.add(row)
            self._run.rows.append(row)

    def _outcome(self, row: int | None) -> Outcome:
        if row is None:
            return Outcome(State.FAILED)
        costs, excess = tuple(self._table.costs[row].tolist()), tuple(self._excess[row].tolist())
        if not self._allowed[row]:
            return Outcome(State.REFUSED, None, costs, excess)
        return Outcome(State.DONE, float(self._table.accuracy[row]), costs, excess)


def _identity(params: Params, row: int | None) -> object:
    """Return what tells networks apart: their row, or their parameters where the table doesn't hold them."""
    return tuple(params[name] for name in sorted(params)) if row is None else row


def _excess(table: Table, limits: Sequence[float | None]) -> Array:
    """Return log(cost / limit) (n, limited costs)."""
    limited = [np.log(cost / limit) for cost, limit in zip(table.costs.T, limits, strict=False) if limit is not None]
    return np.stack(limited, axis=1) if limited else np.zeros((len(table.configs), 0))
