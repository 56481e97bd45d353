"""A batch: fresh processes time an anchor and all models, until enough of them agree that nothing disturbed."""

# ruff: noqa: B905 - zip() has no `strict` before Python 3.10

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from workers.latency.agent.cooling import Client, Cooling
from workers.latency.agent.disturbance import disturbed
from workers.latency.agent.files import hash_or_empty
from workers.latency.agent.judgement import Choice, Rule, Timed, choose
from workers.latency.agent.quiet_cores import CoresTaken, claimed, own_threads_off
from workers.latency.agent.reports import wall_facts
from workers.latency.agent.runtimes import installed_runtimes
from workers.latency.agent.sensors import cores_for, siblings, usable_cores
from workers.latency.agent.subprocesses import ProcessEnd, pause, run_process
from workers.latency.agent.timing import LOOP_NUMBERS, require_numbers

_PER_PROCESS = (
    *("samples_ms", "cpu_ms", "stride", "runs", "set_aside", "lost", "switches", "waited", "quota_stops", "stolen"),
    *("peak_memory_mb", "energy_mj"),
    *("siblings_busy", "neighbours_busy", "disturbed", "before", "after", "throttled"),
)
GIVE_UP_AFTER = 2  # further processes, where nothing was left undisturbed before them and in them
WITHIN = 0.02  # the half width of an interval that is narrow enough, relative


@dataclass(frozen=True)
class Placement:
    """How the fresh processes of a batch start, and where they run."""

    command: Sequence[str]  # what starts the agent in a fresh process, without its arguments
    core: int | None = None  # the one to pin to; None: the last usable one
    # All of them, one per thread, known beforehand: while one batch keeps this process's threads off its cores, another
    # couldn't choose them.
    cores: tuple[int, ...] | None = None


class _BatchLost(Exception):
    """No model of the batch can be measured, because the anchor or the process itself fails."""


@dataclass(frozen=True)
class _Round:
    """One process's report, which model it ran at each position after the first anchor, and whether it was cooled."""

    report: dict[str, Any]
    places: tuple[int, ...]
    cooled: bool | None

    @property
    def anchor_ms(self) -> tuple[float, float]:
        """The medians of the first and the last anchor."""
        first, last = (self.report["models"][end] for end in (0, -1))
        return median(first["samples_ms"]), median(last["samples_ms"])

    @property
    def throttled(self) -> bool:
        """Whether the processor is known to have been slowed down while any model ran."""
        return any(entry.get("throttled") for entry in self.report["models"])

    def position(self, place: int) -> int:
        """The position of a model, from 1 on: the first anchor is at 0."""
        return self.places.index(place) + 1

    def entry(self, place: int) -> dict[str, Any]:
        """What the report says of a model."""
        entry: dict[str, Any] = self.report["models"][self.position(place)]
        return entry

    def timed(self, place: int) -> Timed:
        """What is to be judged of a model in this process."""
        entry = self.entry(place)
        by = disturbed({**entry, "throttled": self.throttled})
        return Timed(median(entry["samples_ms"]), self.anchor_ms, by)

    def process(self, place: int) -> dict[str, Any]:
        """What a batch reports of a model in this process."""
        figures = {key: self.entry(place).get(key) for key in _PER_PROCESS}
        where = {"position": self.position(place), "anchor_ms": list(self.anchor_ms), "cooled": self.cooled}
        return {**figures, **where, "disturbed": self.timed(place).disturbed}


def _failed_entry(path: Path, reason: str, fault: str) -> dict[str, Any]:
    return {"path": str(path), "sha256": hash_or_empty(path), "error": reason, "fault": fault}


class Batch:
    """Times models in fresh processes, until enough of them agree; see `measure_batch`, which puts it together."""

    def __init__(
        self,
        anchor: Path,
        policy: dict[str, Any],
        start: Callable[[Sequence[Path]], ProcessEnd],
        cooling: Cooling,
        client: Client,
    ) -> None:
        self._anchor, self._policy = anchor, policy
        self._start, self._cooling, self._client = start, cooling, client
        self._rule = Rule(
            processes=policy["processes"],
            most=policy["processes"] * policy["attempts"],
            tolerance=policy["anchor_tolerance"],
            within=policy.get("interval_within", WITHIN),
        )
        self._rounds: list[_Round] = []
        # Reason and fault, by place: the same file may be in the list twice.
        self._failed: dict[int, tuple[str, str]] = {}

    def measure(self, models: Sequence[Path]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Return the report of one process (None without one), and one entry per model."""
        try:
            self._run_rounds(models)
        except _BatchLost as lost:
            for place in range(len(models)):
                if not self._rounds_of(place):
                    self._failed.setdefault(place, (str(lost), "device"))
        entries = []
        for place, path in enumerate(models):
            if place in self._failed:
                entries.append(_failed_entry(path, *self._failed[place]))
            else:
                entries.append(self._entry(place, path))
        return (self._rounds[0].report if self._rounds else None), entries

    def _run_rounds(self, models: Sequence[Path]) -> None:
        """Run one process after another with the models that need it, as many as the policy allows."""
        orders = _shuffled_orders(len(models), self._rule.most)
        for number, order in enumerate(orders):
            open_places = [place for place in order if place not in self._failed and not self._is_enough(place)]
            if not open_places or self._is_hopeless():
                return
            if number >= self._rule.processes and not all(self._choice(place).steady for place in open_places):
                self._client.heartbeat("cooling")
                pause(self._policy["cooldown_s"], self._client.stop)
            self._rounds.append(self._round(models, open_places))

    def _round(self, models: Sequence[Path], order: Sequence[int]) -> _Round:
        """Run one process; models that fail in it are noted, and left out from then on."""
        cooled = self._cooling.wait()
        self._client.heartbeat("measuring")
        report, places = self._report(models, order)
        for entry in (report["models"][0], report["models"][-1]):
            if "error" in entry:
                raise _BatchLost(f"the anchor model {self._anchor.name} was refused: {entry['error']}")
        for place, entry in zip(places, report["models"][1:-1]):
            if "error" in entry:
                self._failed[place] = (entry["error"], "model")
        return _Round(report, places, cooled)

    def _report(self, models: Sequence[Path], order: Sequence[int]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Run one process, and again without each model it died of; return its report and the order of its models."""
        while True:
            places = tuple(place for place in order if place not in self._failed)
            if not places:
                raise _BatchLost("no model is left")  # each has its own reason by now
            end = self._start([self._anchor, *(models[place] for place in places), self._anchor])
            if end.report is not None:
                return end.report, places
            if end.position is None or not 1 <= end.position <= len(places):
                at_anchor = "" if end.position is None else f" (at the anchor model {self._anchor.name})"
                raise _BatchLost(end.reason + at_anchor)
            self._failed[places[end.position - 1]] = (end.reason, "device" if end.killed else "model")

    def _is_hopeless(self) -> bool:
        """Whether the machine is too busy to go on: something disturbed every model in all of the last processes."""
        if len(self._rounds) < self._rule.processes + GIVE_UP_AFTER:
            return False
        last = self._rounds[-self._rule.processes - GIVE_UP_AFTER :]
        return all(one.timed(place).disturbed for one in last for place in one.places if place not in self._failed)

    def _rounds_of(self, place: int) -> list[_Round]:
        return [one for one in self._rounds if place in one.places]

    def _choice(self, place: int) -> Choice:
        return choose([one.timed(place) for one in self._rounds_of(place)], self._rule)

    def _is_enough(self, place: int) -> bool:
        return bool(self._rounds_of(place)) and self._choice(place).is_enough

    def _entry(self, place: int, path: Path) -> dict[str, Any]:
        """Return a model's entry of the report: its samples and conditions in the processes that count."""
        rounds, choice = self._rounds_of(place), self._choice(place)
        kept = [rounds[number] for number in choice.kept]
        sha256 = kept[-1].entry(place)["sha256"]
        if any(one.entry(place)["sha256"] != sha256 for one in rounds):
            reason = "a model's file must not change while it is measured, but it did; measure it again"
            return _failed_entry(path, reason, "model")
        return {
            "path": str(path),
            "sha256": sha256,
            "processes": [one.process(place) for one in kept],
            "attempt": -(-len(rounds) // self._rule.processes),
            "measured": len(rounds),
            "planned_from": self._rule.processes if choice.steady else None,
            "anchor_drift": choice.anchor_drift,
            "steady": choice.steady,
        }


def _shuffled_orders(count: int, processes: int) -> list[list[int]]:
    """Return one order of `count` places per process; consecutive orders differ where that is possible."""
    rng = random.Random(1)
    orders: list[list[int]] = []
    for _ in range(processes):
        order = rng.sample(range(count), count)
        while count > 1 and orders and order == orders[-1]:
            rng.shuffle(order)
        orders.append(order)
    return orders


def measure_batch(
    models: Sequence[Path],
    anchor: Path,
    policy: dict[str, Any],
    placement: Placement,
    client: Client | None = None,
) -> dict[str, Any]:
    """Time the models on this machine by the rules of the policy; return one JSON-able report.

    Each fresh process times the anchor, the models in an order of its own, and the anchor again. A model needs
    `processes` of them that nothing disturbed and that agree within `anchor_tolerance`, in the anchor's medians and in
    its own, and as many more as make its interval as narrow as `interval_within`. While one lacks them, further
    processes time it, each after a pause of `cooldown_s`, up to `processes` x `attempts` in all, or until it is clear
    that the machine is busy all the time; then the best ones are kept, and the entry is not steady. `judgement` and
    `disturbance` have the rules. A model that is refused, crashes its process or takes longer than `timeout_s` is left
    out from then on.

    Other measurements on the same cores are waited for, and the threads of this process run on others meanwhile.

    Args:
        models: their files; the same one may be there twice.
        anchor: the model whose latency shows whether the machine is steady.
        policy: every field of a measurement policy, as JSON has it.
        placement: how the fresh processes start, and the core they are pinned to.
        client: asked whether to stop, and told what is being done; None: no one is.

    Returns:
        The facts of runtime and machine, and under `models` one entry per path in the order given: path, sha256,
        processes (those that count), attempt, measured (in how many processes), planned_from (the number of first
        processes that said how many it takes; None where it isn't steady), anchor_drift and steady; or path, sha256
        (empty: unreadable), error (one line) and fault ("model", or "device" when the anchor or the process failed).

    Raises:
        ValueError: the policy lacks a number, the core is not usable or there are fewer cores than threads.
        Stopped: the client said so.
    """
    require_numbers(policy, ("processes", "attempts", "cooldown_s", "anchor_tolerance", "timeout_s", *LOOP_NUMBERS))
    runtime = str(policy.get("runtime", "onnxruntime"))
    cores = placement.cores
    if cores is None:
        cores = tuple(cores_for(usable_cores()[-1] if placement.core is None else placement.core, policy["threads"]))
    facts = wall_facts(runtime, installed_runtimes().get(runtime, ""), cores)
    options = ["--watch-stdin", "--policy", json.dumps(policy), "--cores", ",".join(map(str, cores)), "--"]
    command = [*placement.command, "measure", *options]
    client = client or Client()
    units = {one for core in cores for one in siblings(core)}

    def start(models: Sequence[Path]) -> ProcessEnd:
        try:
            with claimed(units, client.stop) as locks, own_threads_off(cores):
                return run_process([*command, *map(str, models)], policy["timeout_s"], client.stop, locks)
        except CoresTaken as taken:
            return ProcessEnd(None, None, str(taken))

    report, entries = Batch(anchor, policy, start, Cooling(policy, client), client).measure(models)
    return {**(report or facts), "policy": policy.get("label"), "models": entries}
