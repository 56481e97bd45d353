"""A batch: fresh processes time an anchor and all models, and do so again if the machine wasn't steady."""

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
from workers.latency.agent.files import hash_or_empty
from workers.latency.agent.reports import wall_facts
from workers.latency.agent.runtimes import installed_runtimes
from workers.latency.agent.sensors import cores_for, usable_cores
from workers.latency.agent.subprocesses import ProcessEnd, pause, run_process
from workers.latency.agent.timing import LOOP_NUMBERS, require_numbers

_PER_PROCESS = ("samples_ms", "stride", "runs", "before", "after", "throttled")


@dataclass(frozen=True)
class Placement:
    """How the fresh processes of a batch start, and where they run."""

    command: Sequence[str]  # what starts the agent in a fresh process, without its arguments
    core: int | None = None  # the one to pin to; None: the last usable one


class _BatchLost(Exception):
    """No model of the batch can be measured, because the anchor or the process itself fails."""


@dataclass(frozen=True)
class _Attempt:
    """One attempt at the whole batch: each process's report, the order of its models, and whether it was cooled."""

    number: int  # from 1
    reports: tuple[dict[str, Any], ...]
    orders: tuple[tuple[int, ...], ...]  # per process, the model at each position after the first anchor
    cooled: tuple[bool | None, ...]

    @property
    def anchor_ms(self) -> list[list[float]]:
        """The medians of the first and last anchor of each process."""
        ends = ((report["models"][0], report["models"][-1]) for report in self.reports)
        return [[median(entry["samples_ms"]) for entry in pair] for pair in ends]

    @property
    def drift(self) -> float:
        """How far the anchor moved within and between the processes, relative to its fastest median."""
        medians = [value for pair in self.anchor_ms for value in pair]
        return float((max(medians) - min(medians)) / min(medians))

    @property
    def throttled(self) -> bool:
        """Whether the processor is known to have been slowed down while any model ran."""
        return any(entry.get("throttled") for report in self.reports for entry in report["models"])

    def is_steady(self, tolerance: float) -> bool:
        """Return whether the machine was steady: the anchor moved little and nothing was throttled."""
        return self.drift <= tolerance and not self.throttled

    def entry(self, place: int, path: Path, tolerance: float) -> dict[str, Any]:
        """Gather one model's samples and conditions from the processes."""
        positions = [order.index(place) + 1 for order in self.orders]
        measured = [report["models"][position] for report, position in zip(self.reports, positions)]
        if any(entry["sha256"] != measured[-1]["sha256"] for entry in measured):
            reason = "a model's file must not change while it is measured, but it did; measure it again"
            return _failed_entry(path, reason, "model")
        processes = [
            {
                **{key: entry[key] for key in _PER_PROCESS},
                "position": position,
                "anchor_ms": anchor_ms,
                "cooled": cooled,
            }
            for entry, position, anchor_ms, cooled in zip(measured, positions, self.anchor_ms, self.cooled)
        ]
        return {
            "path": str(path),
            "sha256": measured[-1]["sha256"],
            "processes": processes,
            "attempt": self.number,
            "anchor_drift": self.drift,
            "steady": self.is_steady(tolerance),
        }


def _failed_entry(path: Path, reason: str, fault: str) -> dict[str, Any]:
    return {"path": str(path), "sha256": hash_or_empty(path), "error": reason, "fault": fault}


class Batch:
    """Times models in `policy["processes"]` fresh processes; see `measure_batch`, which puts it together."""

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
        # Reason and fault, by place: the same file may be in the list twice.
        self._failed: dict[int, tuple[str, str]] = {}

    def measure(self, models: Sequence[Path]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Return the report of one process of the best attempt (None without one), and one entry per model."""
        best = self._best_attempt(models)
        entries = []
        for place, path in enumerate(models):
            if best is None or place in self._failed:
                entries.append(_failed_entry(path, *self._failed[place]))
            else:
                entries.append(best.entry(place, path, self._policy["anchor_tolerance"]))
        return (None if best is None else best.reports[0]), entries

    def _best_attempt(self, models: Sequence[Path]) -> _Attempt | None:
        """Attempt until one is steady; otherwise keep the attempt that was throttled least, then moved least."""
        best: _Attempt | None = None
        for number in range(1, self._policy["attempts"] + 1):
            if len(self._failed) == len(models):
                break
            if number > 1:
                self._client.heartbeat("cooling")
                pause(self._policy["cooldown_s"], self._client.stop)
            try:
                attempt = self._attempt(models, number)
            except _BatchLost as lost:
                if best is None:
                    for place in set(range(len(models))) - set(self._failed):
                        self._failed[place] = (str(lost), "device")
                break
            if best is None or (attempt.throttled, attempt.drift) < (best.throttled, best.drift):
                best = attempt
            if best.is_steady(self._policy["anchor_tolerance"]):
                break
        return best

    def _attempt(self, models: Sequence[Path], number: int) -> _Attempt:
        """Run every process once; models that fail are noted and left out from then on."""
        reports, orders, cooled = [], [], []
        for order in _shuffled_orders(len(models), self._policy["processes"], seed=number):
            cooled.append(self._cooling.wait())
            self._client.heartbeat("measuring")
            report, measured = self._round(models, order)
            for entry in (report["models"][0], report["models"][-1]):
                if "error" in entry:
                    raise _BatchLost(f"the anchor model {self._anchor.name} was refused: {entry['error']}")
            for place, entry in zip(measured, report["models"][1:-1]):
                if "error" in entry:
                    self._failed[place] = (entry["error"], "model")
            reports.append(report)
            orders.append(measured)
        return _Attempt(number, tuple(reports), tuple(orders), tuple(cooled))

    def _round(self, models: Sequence[Path], order: Sequence[int]) -> tuple[dict[str, Any], tuple[int, ...]]:
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
            self._failed[places[end.position - 1]] = (end.reason, "model")


def _shuffled_orders(count: int, processes: int, seed: int) -> list[list[int]]:
    """Return one order of `count` places per process; consecutive orders differ where that is possible."""
    rng = random.Random(seed)
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

    Each of `processes` fresh processes times the anchor, every model in an order of its own, and the anchor again.
    If the anchor's medians moved by more than `anchor_tolerance`, or the processor was throttled, the batch is redone
    after `cooldown_s`, `attempts` times at most; when none is steady the best one is kept and says so. A model that
    is refused, crashes its process or takes longer than `timeout_s` is left out from then on.

    Args:
        models: their files; the same one may be there twice.
        anchor: the model whose latency shows whether the machine is steady.
        policy: every field of a measurement policy, as JSON has it.
        placement: how the fresh processes start, and the core they are pinned to.
        client: asked whether to stop, and told what is being done; None: no one is.

    Returns:
        The facts of runtime and machine, and under `models` one entry per path in the order given: path, sha256,
        processes, attempt, anchor_drift and steady; or path, sha256 (empty: unreadable), error (one line) and fault
        ("model", or "device" when the anchor or the process failed).

    Raises:
        ValueError: the policy lacks a number, the core is not usable or there are fewer cores than threads.
        Stopped: the client said so.
    """
    require_numbers(policy, ("processes", "attempts", "cooldown_s", "anchor_tolerance", "timeout_s", *LOOP_NUMBERS))
    runtime = str(policy.get("runtime", "onnxruntime"))
    first = usable_cores()[-1] if placement.core is None else placement.core
    facts = wall_facts(runtime, installed_runtimes().get(runtime, ""), cores_for(first, policy["threads"]))
    options = ["--watch-stdin", "--policy", json.dumps(policy), "--core", str(first), "--"]
    command = [*placement.command, "measure", *options]
    client = client or Client()

    def start(models: Sequence[Path]) -> ProcessEnd:
        return run_process([*command, *map(str, models)], policy["timeout_s"], client.stop)

    report, entries = Batch(anchor, policy, start, Cooling(policy, client), client).measure(models)
    return {**(report or facts), "policy": policy.get("label"), "models": entries}
